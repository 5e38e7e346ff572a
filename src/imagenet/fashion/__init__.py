"""Fashion-MNIST by its bare name: found, downloaded and written as PNG files, without the stages of larger sets."""
