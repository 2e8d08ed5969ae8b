"""What shows how an answer came about: heat-maps, features, layers, the network's input."""
