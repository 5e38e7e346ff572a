"""The 24 images of ILSVRC2012's training split that are otherwise than the rest, by file name.

The formats of 23 are told by many who looked. That the XMP packet of one is no XML is hearsay: never a reason to doubt a set.
"""

KNOWN_PNG = "n02105855_2933.JPEG"
KNOWN_XMP = "n04532106_1553.JPEG"
_CMYK = (
    "n01739381_1309",
    "n02077923_14822",
    "n02447366_23489",
    "n02492035_15739",
    "n02747177_10752",
    "n03018349_4028",
    "n03062245_4620",
    "n03347037_9675",
    "n03467068_12171",
    "n03529860_11437",
    "n03544143_17228",
    "n03633091_5218",
    "n03710637_5125",
    "n03961711_5286",
    "n04033995_2932",
    "n04258138_17003",
    "n04264628_27969",
    "n04336792_7448",
    "n04371774_5854",
    "n04596742_4225",
    "n07583066_647",
    "n13037406_4650",
)
KNOWN = {KNOWN_PNG: "PNG", KNOWN_XMP: "a broken XMP packet", **{f"{stem}.JPEG": "CMYK" for stem in _CMYK}}
