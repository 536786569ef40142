"""The paper's claims on CIFAR-10: a plan of runs, a runner, their records and the statistics over them."""
