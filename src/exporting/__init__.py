"""From a trained model to files that others can use: safetensors, torch.export, ONNX, int8, pruned; a Hugging Face folder."""
