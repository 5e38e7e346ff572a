"""An ImageNet trainer: a plan says which images come next, an engine makes pixels, one loop makes a model."""
