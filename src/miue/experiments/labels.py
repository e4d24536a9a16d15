"""Methods, networks and defenses as readers know them."""

NAMES = {
    "clean": "clean",
    "withheld": "clean part alone",
    "random": "random noise",
    "em": "EM",
    "mi_ue": "MI-UE",
    "entf": "EntF",
    "llock": "LLock",
    "small_resnet": "small ResNet",
    "lenet5": "LeNet-5",
    "resnet18": "ResNet-18",
    "resnet50": "ResNet-50",
    "vgg11": "VGG-11",
    "vgg19": "VGG-19",
    "densenet121": "DenseNet-121",
    "wrn34_10": "WRN-34-10",
    "vit": "ViT",
    "mlp2": "2-layer MLP",
    "mlp3": "3-layer MLP",
    "d_vae": "D-VAE",
    "iss": "ISS",
    "ueraser": "UEraser",
    "avatar": "AVATAR",
    "coin": "COIN",
    "notch": "notch filter",
    "sda_an": "SDA+AN",
    **{
        name: name.upper()
        for name in (
            *("rem", "sem", "tap", "aue", "aap", "tue", "gue", "pue", "uc", "pil"),
            *("ar", "lsp", "ops", "cuda", "dune", "ntga"),
        )
    },
}


OPTIONS = {
    "objective=cross_entropy": "cross-entropy",
    "objective=no_self_pairs": "no self-pairs",
    "objective=centred": "centred features",
    "batches_per_epoch=10": "10 batches an epoch",
    "schedule=constant": "constant rate",
    "content_flips=true": "content flips",
    "rounding=each_pass": "rounded each pass",
    "scope=class": "per class",
    "mine=0.1": "MINE term",
    "mine=-0.1": "MINE term reversed",
    "agreement=1": "agreement kept",
    "similarity=false": "no similarity",
    "drift=0.025": "drifting",
    "balance=loss": "balanced loss",
    "balance=batches": "balanced batches",
    "sets=true": "shared labels",
    "objective=information": "information",
}
"""Options that say more in other words than by name and value."""


def title(spec: str) -> str:
    """Write a method, victim or defense as a reader knows it: "resnet18:width=0.25" as "ResNet-18, width 0.25".

    What stands in a file of somebody's own is called as it is there: "loop (own.py)".
    """
    file, own, inside = spec.partition(".py:")
    name, *options = (inside if own else spec).split(":")
    words = (OPTIONS.get(option, option.replace("=", " ").replace("_", " ")) for option in options)
    told = ", ".join([NAMES.get(name, name.replace("_", " ")), *words])
    return f"{told} ({file.rpartition('/')[2]}.py)" if own else told
