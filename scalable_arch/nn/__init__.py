"Neural network parts: units, ResNet, cost, inference."
