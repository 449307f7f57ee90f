"""The method once more, plain and slow: loops over images, texts and fragments, nothing shared with the mgs package.

It follows the published equations one number at a time, in float32 for CLIP and plain Python for the rest, so that a
reader can check it against the paper by eye. The tests hold the fast model to it.
"""

import math

import clip
import numpy as np
import torch

QUALITY = ["bad", "poor", "fair", "good", "perfect"]
REALISM = ["unrealistic", "slightly unrealistic", "fairly realistic", "realistic", "highly realistic"]
LEVEL = [0, 1.25, 2.5, 3.75, 5]

SEPARATORS = {"keywords": ",", "hybrid": ",:", "sentence": ",."}
PREPOSITIONS = {
    "keywords": [],
    "hybrid": ["in", "of", "on", "at", "from", "by", "with", "for", "across", "inside", "near", "between", "as", "to"],
    "sentence": [
        *["in", "of", "on", "at", "from", "with", "for", "across", "through", "against", "over", "above", "behind"],
        *["next to", "under", "into", "onto", "without"],
    ],
}
ENDS = " ,.:;!?\"'()[]“”‘’-"


def fragments_of(prompt, style):
    """Word by word: close the fragment after a separator and before a preposition."""
    text = prompt.strip()
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1]
    words = text.split()
    fragments, current = [], []
    i = 0
    while i < len(words):
        word = words[i]
        pair = " ".join(words[i : i + 2])
        step = 1
        if bare(pair) in PREPOSITIONS[style]:
            step = 2
        if step == 2 or bare(word) in PREPOSITIONS[style]:
            fragments.append(current)
            current = []
        current = current + words[i : i + step]
        last = current[-1].rstrip("'\"”’)")  # a closing quotation mark may follow the full stop
        initials = last.endswith(".") and (len(last) == 2 or (len(last) > 3 and last[-3] == "."))
        if last[-1:] and last[-1] in SEPARATORS[style] and not initials:
            fragments.append(current)
            current = []
        i += step
    fragments.append(current)
    fragments = [" ".join(one).strip(ENDS) for one in fragments]
    fragments = [one for one in fragments if one]
    i = 0
    while i < len(fragments) and len(fragments) > 1:
        if fragments[i].lower() in PREPOSITIONS[style]:
            j = i if i + 1 < len(fragments) else i - 1
            fragments[j : j + 2] = [fragments[j] + " " + fragments[j + 1]]
        else:
            i += 1
    return text, fragments


def bare(words):
    return words.lower().strip(ENDS.replace("-", ""))


def resize(picture, size):
    """Bilinear, corners not aligned, not antialiased; (H, W, 3) float64 to (size, size, 3), a pixel at a time."""
    height, width, _ = picture.shape
    out = np.zeros((size, size, 3))
    for i in range(size):
        y = max((i + 0.5) * height / size - 0.5, 0)
        y0 = int(y)
        y1 = min(y0 + 1, height - 1)
        for j in range(size):
            x = max((j + 0.5) * width / size - 0.5, 0)
            x0 = int(x)
            x1 = min(x0 + 1, width - 1)
            top = picture[y0, x0] * (1 - (x - x0)) + picture[y0, x1] * (x - x0)
            bottom = picture[y1, x0] * (1 - (x - x0)) + picture[y1, x1] * (x - x0)
            out[i, j] = top * (1 - (y - y0)) + bottom * (y - y0)
    return out


def views_of(picture, size):
    """A uint8 (H, W, 3) picture as ten normalised (3, size, size) arrays."""
    picture = picture.astype(np.float64) / 255
    height, width, _ = picture.shape
    parts = [picture]
    for row in (0, 1, 2):
        for column in (0, 1, 2):
            y = row * ((height - 384) // 2)
            x = column * ((width - 384) // 2)
            parts.append(picture[y : y + 384, x : x + 384])
    mean = np.array([0.48145466, 0.4578275, 0.40821073])
    std = np.array([0.26862954, 0.26130258, 0.27577711])
    return [((resize(part, size) - mean) / std).transpose(2, 0, 1) for part in parts]


def image_vector(model, view):
    with torch.no_grad():
        return unit(model.encode_image(torch.as_tensor(view, dtype=torch.float32)[None])[0])


def text_vector(model, text):
    with torch.no_grad():
        return unit(model.encode_text(clip.tokenize([text], truncate=True))[0])


def unit(vector):
    vector = vector.numpy().astype(np.float64)
    return vector / math.sqrt(sum(vector * vector))


def softmax(numbers):
    exponentials = [math.exp(number - max(numbers)) for number in numbers]
    return [number / sum(exponentials) for number in exponentials]


def score(model, views, prompt, style, *, alpha=0.0, temperature=1.0, weights=(0.0, 0.0, 0.0)):
    """One image's four scores: `views` ten (3, S, S) arrays, view 0 the whole image."""
    whole, patches = image_vector(model, views[0]), [image_vector(model, view) for view in views[1:]]

    similarity = {}
    for q in QUALITY:
        for r in REALISM:
            sentence = text_vector(model, f"A photo of {q} quality that appears {r}.")
            over_patches = sum(patch @ sentence for patch in patches) / len(patches)
            similarity[q, r] = (whole @ sentence + over_patches) / 2
    keys = list(similarity)
    joint = dict(zip(keys, softmax([temperature * similarity[key] for key in keys]), strict=True))
    quality = sum(LEVEL[QUALITY.index(q)] * p for (q, _), p in joint.items())
    authenticity = sum(LEVEL[REALISM.index(r)] * p for (_, r), p in joint.items())

    text, fragments = fragments_of(prompt, style)
    full = text_vector(model, text)
    g = whole @ full
    if len(fragments) > 1:
        vectors = [text_vector(model, fragment) for fragment in fragments]
        shown = [sum(sorted((patch @ vector for patch in patches), reverse=True)[:3]) / 3 for vector in vectors]
        relevance = softmax([vector @ full for vector in vectors])
        f = sum(weight * value for weight, value in zip(relevance, shown, strict=True))
        a = 1 / (1 + math.exp(-alpha))
        correspondence = 5 * (a * g + (1 - a) * f)
    else:
        correspondence = 5 * g
    three = [quality, authenticity, correspondence]
    overall = sum(w * s for w, s in zip(softmax(list(weights)), three, strict=True))
    return {"quality": quality, "authenticity": authenticity, "correspondence": correspondence, "overall": overall}
