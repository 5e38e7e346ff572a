"""How plans become pixels. An engine makes uint8 batches on the device, in the plans' order, and knows nothing else."""
