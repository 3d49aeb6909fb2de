"""`TrustRegionGRPOTrainer`: TRL's GRPOTrainer under any method of the lab that it can honour.

    from cppo_lab.integrations.trl import TrustRegionGRPOTrainer

    trainer = TrustRegionGRPOTrainer(model, reward_func, GRPOConfig(...), train_dataset, algo="cppo")

Data sets, reward functions, generation, distribution and logging stay TRL's. Needs TRL, PyTorch and PyYAML.
"""

from cppo_lab.integrations.trl.trainer import TESTED, TrustRegionGRPOTrainer

__all__ = ["TESTED", "TrustRegionGRPOTrainer"]
