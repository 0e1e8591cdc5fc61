"""The two learned layers: k-space → image by an unrolled network, and image → image without noise and ringing.

    sources     pictures that ship inside packages, split into those to train on, to choose by, and to test with
    pictures    what is drawn of them at high resolution: crops, contrasts, phases
    examples    measurements simulated from pictures: coils, phase, k-space crop, mask, noise
    measured    one image's data as layer 1 takes them
    blocks      convolutions that know which pixels are real, and the small U-Net made of them
    consistency what was measured, as a layer: recon's operators inside torch's graph
    layer1      the unrolled network
    layer2      the network for images
    weights     safetensors and their card: stored, checked, loaded by name
    tasks       what either layer learns
    training    the loop; `python -m recon.networks.train` is its command
    metrics     how near an image is to the truth, and what was done to edges, means, noise and ringing
    rivals      the conventional methods that layer 1 is compared with
    evaluate    `python -m recon.networks.evaluate`: the figures of a card

Sources, pictures, examples, measured, metrics and rivals need no torch.
"""
