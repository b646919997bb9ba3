"""
Train in a process that may end at any moment: the same command resumes it from the last checkpoint.

    python examples/resume.py --stop-at 2500    # ends halfway, as on a cluster that takes its machine back
    python examples/resume.py                   # makes the other half

The second process repeats no random warm-up: replay buffer, optimiser, counters and random states are all restored.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from sb3_lql import NCLQL
from sb3_lql.saving.callbacks import SaveCheckpointCallback
from sb3_lql.saving.checkpoint import find_checkpoint

ENV_ID = "Pendulum-v1"


def main(argv: Sequence[str] | None = None) -> None:
    """Begin a training, or resume the one that the folder holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--timesteps", type=int, default=5_000, help="of the whole training (default: %(default)s)")
    parser.add_argument("--stop-at", type=int, metavar="TIMESTEP", help="end this process early")
    parser.add_argument("--learning-starts", type=int, default=1_000, help="random steps first (default: %(default)s)")
    parser.add_argument("--save-freq", type=int, default=1_000, help="steps per checkpoint (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path("logs/resume"), help="(default: %(default)s)")
    args = parser.parse_args(argv)

    if find_checkpoint(args.folder) is None:
        model = NCLQL(
            "MlpPolicy",
            ENV_ID,
            learning_rate=1e-3,
            learning_starts=args.learning_starts,
            tau=0.02,
            policy_kwargs=dict(net_arch=[64, 64]),
        )
    else:
        model = NCLQL.load_checkpoint(args.folder, ENV_ID)
    assert model.replay_buffer is not None
    print(f"begins at step {model.num_timesteps}, with {model.replay_buffer.size()} transitions in the replay buffer")

    end = args.timesteps if args.stop_at is None else args.stop_at
    # learn takes the number of steps to come; without reset_num_timesteps=False it would count from zero again
    model.learn(
        end - model.num_timesteps,
        callback=SaveCheckpointCallback(args.save_freq, args.folder, keep=2),
        reset_num_timesteps=False,
    )
    print(f"ends at step {model.num_timesteps}, after {model._n_updates} updates")


if __name__ == "__main__":
    main()
