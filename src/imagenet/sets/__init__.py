"""What data sets other than ImageNet need: class folders, the split made of them, small arrays, downloads."""
