// Directed graphs: what comes before what, and how far apart things are.
export module atlas.graph;

export import :digraph;
export import :paths;
export import :topology;
