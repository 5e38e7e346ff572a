"""The page that shows what a trained model sees in an image."""
