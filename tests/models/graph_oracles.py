"""Encoders of graphs in float64 NumPy, with one dense adjacency over all nodes."""

import numpy as np


def joined(graphs):
    """(x, adjacency, graph of each node) of [(features, edges), ...]."""
    sizes = [len(x) for x, _ in graphs]
    adjacency = np.zeros((sum(sizes), sum(sizes)))
    for (_, edges), at in zip(graphs, np.cumsum([0, *sizes]), strict=False):
        for i, j in edges:
            adjacency[at + i, at + j] += 1
            adjacency[at + j, at + i] += 1
    x = np.concatenate([np.asarray(x, np.float64) for x, _ in graphs])
    return x, adjacency, np.repeat(np.arange(len(graphs)), sizes)


class Norms:
    """Batch normalizations in the order in which they are met."""

    def __init__(self, variables, train):
        self.params, self.running = variables["params"], variables.get("batch_stats")
        self.train, self.met = train, {}

    def __call__(self, x):
        name = f"BatchNorm_{len(self.met)}"
        mean, variance = x.mean(axis=0), ((x - x.mean(axis=0)) ** 2).mean(axis=0)
        old = self.running[name]
        self.met[name] = {
            "mean": 0.9 * old["mean"] + 0.1 * mean,
            "var": 0.9 * old["var"] + 0.1 * variance,
        }
        if not self.train:
            mean, variance = old["mean"], old["var"]
        scaled = (x - mean) / (variance + 1e-5) ** 0.5
        return scaled * self.params[name]["scale"] + self.params[name]["bias"]


def read(layers, owner, pooling, readout):
    h = layers[-1] if readout == "last" else np.concatenate(layers, axis=1)
    if pooling == "none":
        return h
    pooled = [h[owner == g] for g in range(owner.max() + 1)]
    return np.array([x.sum(0) if pooling == "sum" else x.mean(0) for x in pooled])


def gin(variables, graphs, depth, pooling, readout, train):
    """(h, running statistics) of Xu et al., equation 4.1."""
    x, adjacency, owner = joined(graphs)
    params, norm, layers = variables["params"], Norms(variables, train), []
    for layer in range(depth):
        x = x + params[f"eps_{layer}"] * x + adjacency @ x
        for half in range(2):
            x = x @ params[f"Dense_{2 * layer + half}"]["kernel"]
            x = np.maximum(norm(x), 0)
        layers.append(x)
    return read(layers, owner, pooling, readout), norm.met


def gcn(variables, graphs, depth, pooling, readout, train, norm=True, first=True):
    """(h, running statistics) of Kipf and Welling, equation 2."""
    x, adjacency, owner = joined(graphs)
    params, layers = variables["params"], []
    met = Norms(variables, train)
    if first:
        dense = params["Dense_0"]
        x = np.maximum(met(x) @ dense["kernel"] + dense["bias"], 0)
    looped = adjacency + np.eye(len(x))
    degree = looped.sum(axis=1)
    smooth = looped / np.sqrt(degree[:, None] * degree[None])
    for layer in range(depth):
        x = met(x) if norm else x
        x = smooth @ x @ params[f"Dense_{layer + first}"]["kernel"]
        x = np.maximum(x + params[f"bias_{layer}"], 0)
        layers.append(x)
    return read(layers, owner, pooling, readout), met.met
