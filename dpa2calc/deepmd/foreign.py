"""What a file is that this package cannot read, and what can be done about it."""

from __future__ import annotations

from pathlib import Path

# deepmd-kit's formats that only it can read, and what to do with them.
_CONVERT = (
    "in deepmd-kit's environment run `dp convert-backend {name} {stem}.dp` and load the .dp (a file of "
    "deepmd-kit before 2.0 needs `dp convert-from` first)"
)
_BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "it is a pointer of Git LFS instead of the file; run `git lfs pull`"),
    (b"\x1f\x8b", "it is packed with gzip; unpack it first"),
    (b"BZh", "it is packed with bzip2; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "it is packed with zstd; unpack it first"),
    (b"7z\xbc\xaf", "it is packed with 7z; unpack it first"),
    (b"\x93NUMPY", "it is an array of NumPy"),
    (b"- ", "it is a list in a text file"),
)
_KINDS = "readable are .safetensors of dpa2calc, and .pt, .pth, .dp and .yaml of deepmd-kit"


def is_page(head: bytes) -> bool:
    """Whether a file begins as HTML or XML does, also after a byte-order mark or as a comment."""
    begins = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:9].lower()
    return begins.startswith((b"<!doctype", b"<html", b"<!--", b"<?xml"))


def what_it_is(head: bytes, path: Path) -> str:
    """A sentence about a file of none of the known kinds.

    Args:
        head: its first bytes, 1024 will do.
    """
    convert = _CONVERT.format(name=path.name, stem=path.stem)
    for beginning, sentence in _BEGINNINGS:
        if head.startswith(beginning):
            return sentence
    if is_page(head):
        return "it is a web page, probably of a login or an error; fetch the file again"
    if path.suffix == ".pb" or (head.startswith(b"\n") and b"\x12" in head[:64]):
        return f"it looks like a frozen graph of TensorFlow (deepmd-kit's .pb); {convert}"
    if path.suffix in (".json", ".pd", ".hlo", ".jax", ".savedmodel"):
        return f"it looks like a model of deepmd-kit's Paddle or JAX backend; {convert}"
    if head.startswith(b"\x80") and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return (
            "it is a pickle (torch before 1.6, or a Python object of another program), which can run "
            "code and is never opened; load it with the program that wrote it, and save its state with "
            "torch.save(model.state_dict(), ...) of a present torch"
        )
    return f"it is neither a torch zip (.pt, .pth), HDF5 (.dp) nor YAML (.yaml); {_KINDS}"
