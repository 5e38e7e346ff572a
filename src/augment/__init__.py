"""What happens to a batch on the device before the model sees it."""
