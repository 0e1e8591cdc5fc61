"""The two learned layers: k-space → image by an unrolled network, and image → image without noise and ringing.

    blocks      convolutions that know which pixels are real, and the small U-Net made of them
    consistency what was measured, as a layer: recon's operators inside torch's graph
    layer1      the unrolled network
    layer2      the network for images
    weights     safetensors and their card: stored, checked, loaded by name
"""
