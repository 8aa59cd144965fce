"""A hand-written sweep with Ray Tune: a function trainable around the tutorial's loop."""

import argparse
import json
import os
import sys

import ray
from ray import tune

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))


def train_kd(config):
    """Run one trial."""
    from loop import distil

    for val_accuracy in distil(config["trial"], config["data"], config["teacher"], config["epochs"]):
        tune.report({"val_accuracy": val_accuracy})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--trials", required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--storage", required=True)
    parser.add_argument("--reuse-actors", action="store_true")
    options = parser.parse_args()

    from loop import read_configs

    ray.init(address="local", runtime_env={"env_vars": {"PYTHONPATH": os.path.dirname(os.path.abspath(__file__))}})
    gpus = ray.cluster_resources().get("GPU", 0)
    tuner = tune.Tuner(
        tune.with_resources(train_kd, {"cpu": 1, "gpu": 1 if gpus else 0}),
        param_space={
            "trial": tune.grid_search(read_configs(options.trials)),
            "data": options.data,
            "teacher": options.teacher,
            "epochs": options.epochs,
        },
        tune_config=tune.TuneConfig(metric="val_accuracy", mode="max", reuse_actors=options.reuse_actors),
        run_config=tune.RunConfig(name="search", storage_path=options.storage),
    )
    results = tuner.fit()
    print(json.dumps({
        "epochs": sum(result.metrics.get("training_iteration", 0) for result in results),
        "best": results.get_best_result().metrics["val_accuracy"],
    }))  # fmt: skip
