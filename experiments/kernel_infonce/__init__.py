"""Kernel-InfoNCE: which kernel should a contrastive loss have?"""
