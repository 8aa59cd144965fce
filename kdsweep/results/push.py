"""Upload an exported student to the Hugging Face Hub."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from kdsweep import tasks
from kdsweep.errors import InputError, KdsweepError, installing
from kdsweep.results.export import CARD
from kdsweep.results.standalone import MODEL, stands_alone
from kdsweep.results.student_config import CONFIG, WEIGHTS, read_config
from kdsweep.storage.fetched import local_copy
from kdsweep.storage.places import Place


def push_student(student: str | Path | Place, repo: str, private: bool = False) -> str:
    """Upload a student's files to a repository on the Hub, which is created if it does not exist.

    Other files in the folder are not uploaded. The token is that of the environment (`HF_TOKEN`) or of `hf auth login`.

    Args:
        student: The student's folder, as for `load_student`.
        repo: `USER/NAME`.
        private: Whether a repository that is created is private.

    Returns:
        Address of the repository.

    Raises:
        InputError: If the folder is not an exported student, the name is invalid, the package is missing, or there is
            no token.
        KdsweepError: If the Hub cannot be reached or refuses the upload.
    """
    folder = local_copy(student, "student")
    config = read_config(folder)
    carried = tasks.get(config.task).files
    names = [CARD, CONFIG, WEIGHTS, *carried, *config.files, *([MODEL] if stands_alone(config) else [])]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise InputError(f"{folder}: {missing[0]} is missing; export the student again")
    if find_spec("huggingface_hub") is None:
        raise InputError(f"push needs huggingface_hub: {installing('hub')}")
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
        valid = repo.count("/") == 1
    except HFValidationError:
        valid = False
    if not valid:
        raise InputError(f"--repo: found {repo!r}; accepted: USER/NAME of letters, digits, '-', '_' and '.'")
    token = get_token()
    if not token:
        raise InputError("push needs a token of the Hugging Face Hub; run hf auth login, or set HF_TOKEN")
    hub = HfApi(token=token)
    try:
        address = hub.create_repo(repo, private=private, exist_ok=True)
        hub.upload_folder(repo_id=repo, folder_path=folder, allow_patterns=names, commit_message="Upload the student")
    except Exception as error:  # of the HTTP client too, which depends on the version
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        raise KdsweepError(f"push to {repo} failed: {reason}") from error
    return str(address)
