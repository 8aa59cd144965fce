"""A hand-written sweep without Ray: Optuna around the tutorial's loop, in one process."""

import argparse
import json

import optuna
from loop import distil, read_configs

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--trials", required=True)
    parser.add_argument("--epochs", type=int, required=True)
    options = parser.parse_args()
    trained = 0

    def objective(trial):
        """Run one trial."""
        global trained
        config = {
            "temperature": trial.suggest_float("temperature", 1, 16, log=True),
            "alpha": trial.suggest_float("alpha", 0.05, 0.95),
            "lr": trial.suggest_float("lr", 3e-4, 1e-2, log=True),
        }
        best = 0.0
        for epoch, val_accuracy in enumerate(distil(config, options.data, options.teacher, options.epochs)):
            trial.report(val_accuracy, epoch)
            best = max(best, val_accuracy)
            trained += 1
        return best

    study = optuna.create_study(direction="maximize")
    configs = read_configs(options.trials)
    for config in configs:
        study.enqueue_trial(config)
    study.optimize(objective, n_trials=len(configs))
    print(json.dumps({"epochs": trained, "best": study.best_value}))
