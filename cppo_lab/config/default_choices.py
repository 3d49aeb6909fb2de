"""The choices of configuration groups that no override makes, found without composing a configuration."""

from __future__ import annotations

import yaml

from cppo_lab.paths import conf_dir

CONFIG_NAME = "config"


def default_choice(group: str) -> str:
    """The choice of a group where no override makes one."""
    content = yaml.safe_load((conf_dir() / f"{CONFIG_NAME}.yaml").read_text(encoding="utf-8"))
    return str(next(each[group] for each in content["defaults"] if isinstance(each, dict) and group in each))
