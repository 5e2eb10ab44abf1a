"""The descriptors: DPA-2, DPA-1 and DeepPot-SE."""
