"""What a source can look like: one file a layout, and the choice between them."""
