"""Classifiers: torchvision's by name, a small ResNet for small images, or your own."""
