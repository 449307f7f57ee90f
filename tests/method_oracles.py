"""IPCE, LIQE, CLIP-IQA and CLIPScore once more, plain and slow, as their authors describe and code them.

Loops, Pillow and openai-clip; nothing is shared with the mgs package. `picture` is a Pillow image, `model` is
openai-clip's module, whose views have 224 pixels.
"""

import math

import clip
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

MEAN, STD = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])


def to_normal(picture):
    """(3, H, W), float64."""
    return ((np.asarray(picture.convert("RGB"), np.float64) / 255 - MEAN) / STD).transpose(2, 0, 1)


def shorter_to(picture, side, method):
    width, height = picture.size
    if width < height:
        return picture.resize((side, int(side * height / width)), method)
    return picture.resize((int(side * width / height), side), method)


def all_windows(pixels):
    _, height, width = pixels.shape
    stride = 48 if height >= 1024 or width >= 1024 else 32
    windows = []
    y = 0
    while y + 224 <= height:
        x = 0
        while x + 224 <= width:
            windows.append(pixels[:, y : y + 224, x : x + 224])
            x += stride
        y += stride
    return windows


def fifteen(pixels):
    windows = all_windows(pixels)
    assert len(windows) >= 15
    return [windows[i * (len(windows) // 15)] for i in range(15)]


def image_vector(model, view):
    with torch.no_grad():
        vector = model.encode_image(torch.as_tensor(view, dtype=torch.float32)[None])[0].double().numpy()
    return vector / np.linalg.norm(vector)


def text_vector(model, text):
    with torch.no_grad():
        vector = model.encode_text(clip.tokenize([text], truncate=True))[0].double().numpy()
    return vector / np.linalg.norm(vector)


def softmax(numbers):
    powers = [math.exp(number - max(numbers)) for number in numbers]
    return [power / sum(powers) for power in powers]


def ipce(model, picture, prompt):
    if min(picture.size) < 512:
        picture = shorter_to(picture.convert("RGB"), 512, Image.BILINEAR)
    pixels = to_normal(picture)
    whole = F.interpolate(torch.as_tensor(pixels)[None], (224, 224), mode="bilinear", align_corners=False)[0]
    texts = [f"a photo that {w} matches '{prompt}'" for w in ("badly", "poorly", "fairly", "well", "perfectly")]
    texts = [text_vector(model, text) for text in texts]
    scale = math.exp(model.logit_scale.item())
    views = [image_vector(model, window) for window in fifteen(pixels)]
    local = softmax([sum(scale * view @ text for view in views) / 15 for text in texts])
    whole = image_vector(model, whole.numpy())
    total = softmax([scale * whole @ text for text in texts])
    return 5 * (sum(c * (local[c - 1] + total[c - 1]) / 2 for c in (1, 2, 3, 4, 5)) - 1) / 4


def liqe(model, picture, form):
    if min(picture.size) > 768:
        picture = shorter_to(picture.convert("RGB"), 768, Image.BILINEAR)
    views = [image_vector(model, window) for window in fifteen(to_normal(picture))]
    scale = math.exp(model.logit_scale.item())
    words = ["bad", "poor", "fair", "good", "perfect"]
    if form == "quality":
        texts = [(i, f"a photo with {word} quality") for i, word in enumerate(words)]
    else:
        scenes = ["animal", "cityscape", "human", "indoor", "landscape", "night", "plant", "still_life", "others"]
        distortions = ["jpeg2000 compression", "jpeg compression", "noise", "blur", "color", "contrast", "overexposure"]
        distortions += ["underexposure", "spatial", "quantization", "other"]
        texts = [
            (i, f"a photo of a {scene} with {distortion} artifacts, which is of {word} quality")
            for i, word in enumerate(words)
            for scene in scenes
            for distortion in distortions
        ]
    logits = []
    for _, text in texts:
        vector = text_vector(model, text)
        logits.append(sum(scale * view @ vector for view in views) / 15)
    shares = softmax(logits)
    if form == "full":  # the likeliest scene and distortion too

        def share(part):
            return sum(p for (_, text), p in zip(texts, shares, strict=True) if part in text)

        scene = max(scenes, key=lambda name: share(f" a {name} "))
        distortion = max(distortions, key=lambda name: share(f"with {name} art"))
        return sum((i + 1) * p for (i, _), p in zip(texts, shares, strict=True)), scene, distortion
    return sum((i + 1) * p for (i, _), p in zip(texts, shares, strict=True))  # 1-5


def centre_view(picture, size=224):
    picture = shorter_to(picture.convert("RGB"), size, Image.BICUBIC)
    left, top = (round((side - size) / 2) for side in picture.size)
    return to_normal(picture.crop((left, top, left + size, top + size)))


def clip_iqa(model, picture, better, worse):
    view, scale = image_vector(model, centre_view(picture)), math.exp(model.logit_scale.item())
    return softmax([scale * view @ text_vector(model, text) for text in (better, worse)])[0]  # 0-1


def clip_iqa_plus(model, picture, context):
    """`context` (16, W) stands half before and half after each pair's words; the probability of the better one."""
    view, scale = image_vector(model, centre_view(picture)), math.exp(model.logit_scale.item())
    logits = []
    for first in (886, 2103):  # good, bad
        numbers = torch.zeros(1, 77, dtype=torch.int64)
        numbers[0, :21] = torch.tensor([49406, *[343] * 8, first, 1125, 852, *[343] * 8, 49407])
        with torch.no_grad():
            x = model.token_embedding(numbers)
            x[0, 1:9], x[0, 12:20] = context[:8], context[8:]
            x = model.transformer((x + model.positional_embedding).permute(1, 0, 2)).permute(1, 0, 2)
            vector = (model.ln_final(x)[0, 20] @ model.text_projection).double().numpy()
        logits.append(scale * view @ (vector / np.linalg.norm(vector)))
    return softmax(logits)[0]


def clip_score(model, picture, prompt):
    return 2.5 * max(image_vector(model, centre_view(picture)) @ text_vector(model, "A photo depicts " + prompt), 0)


def fidelity(scores, mos):
    """LIQE's loss on its own scale, pair by pair."""
    pairs = []
    for i in range(len(mos)):
        for j in range(i + 1, len(mos)):
            wanted = (np.sign(mos[i] - mos[j]) + 1) / 2
            found = (1 + math.erf((scores[i] - scores[j]) / math.sqrt(2))) / 2
            pairs.append(1 - math.sqrt(found * wanted + 1e-8) - math.sqrt((1 - found) * (1 - wanted) + 1e-8))
    return sum(pairs) / len(pairs)
