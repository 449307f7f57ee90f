"""CLIP, the joint sentences, the fragments, and the MGS scores built on them."""
