"""Models on the Hugging Face Hub: hf://owner/name or hf://owner/name@revision, through the library huggingface_hub.

What lies there is an export. Somebody else may have made it: its checksums are compared as those of any export, the
code that it names runs only where it is trusted, and other files than those of an export are not fetched. The library
keeps what it fetched in its own cache, which serves when the Hub cannot be reached.
"""

import contextlib
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fmd
from fmd.checkpoints.checksums import first_line

PREFIX = "hf://"
ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
FILES = ("*.json", "README.md", "samples.png", "*.stablehlo", "*.safetensors", "weights/*")  # `*` matches slashes, too


def parse(address: str) -> tuple[str, str | None]:
    """("owner/name", revision), None for the newest. ValueError for anything else than an address."""
    found = ADDRESS.fullmatch(address)
    if found is None:
        raise ValueError(f"{address} is no address of a model; write hf://owner/name or hf://owner/name@revision")
    return found[1], found[2]


def fetch(address: str) -> Path:
    """The folder with the files of a model, fetched unless the cache has them.

    Raises:
        ValueError: for what is no address, where there is no such model, or huggingface_hub is not installed.
        OSError: where the Hub cannot be reached and the cache does not have the model.
    """
    repository, revision = parse(address)
    with _in_one_line(address) as library:
        return Path(
            library.snapshot_download(
                repository,
                revision=revision,
                allow_patterns=list(FILES),
                library_name="fmd",
                library_version=fmd.__version__,
            )
        )


def check_push(address: str) -> None:
    """Raises ValueError where a push cannot succeed: no library, no token, no address of a whole model."""
    with _in_one_line(address) as library:
        token = library.get_token()
    if parse(address)[1] is not None:
        raise ValueError(f"{address}: a push goes to the main branch; leave out @ and the revision")
    if token is None:
        raise ValueError(f"{address}: pushing needs a token with leave to write: `hf auth login`, or set HF_TOKEN")


def push(folder: Path, address: str) -> str:
    """Uploads an export, making the model where there is none; returns the address of its page.

    Files of an export that was there before, and are not in this one, are deleted; others stay.

    Raises:
        ValueError: as `check_push` and `fetch`.
        OSError: where the Hub cannot be reached or refuses.
    """
    check_push(address)
    with _in_one_line(address) as library:
        api = library.HfApi(library_name="fmd", library_version=fmd.__version__)
        page = api.create_repo(parse(address)[0], exist_ok=True)
        api.upload_folder(
            repo_id=page.repo_id,
            folder_path=folder,
            allow_patterns=list(FILES),
            delete_patterns=list(FILES),
            commit_message=f"An export of fmd {fmd.__version__}",
        )
    return str(page)


@contextlib.contextmanager
def _in_one_line(address: str) -> Iterator[Any]:
    """Gives the library; its errors become one line each."""
    try:
        library, known = map(importlib.import_module, ("huggingface_hub", "huggingface_hub.errors"))
    except ImportError:
        raise ValueError(
            f"{address} needs the library huggingface_hub: pip install 'flow-matching-designs[hub]'"
        ) from None
    try:
        yield library
    except known.RepositoryNotFoundError:
        raise ValueError(
            f"{address}: the Hub has no such model, or it is private; check the name, or log in with `hf auth login`"
        ) from None
    except known.RevisionNotFoundError:
        raise ValueError(f"{address}: the model has no such revision; give a branch, a tag or a commit") from None
    except known.LocalEntryNotFoundError:
        raise OSError(
            f"{address}: the Hub cannot be reached, and the cache does not have this model; go online, or load a folder"
        ) from None
    except known.HFValidationError as error:
        raise ValueError(f"{address}: {first_line(error)}") from None
    except Exception as error:  # of the network and of the server, whatever the library lets through
        raise OSError(f"{address}: {first_line(error)}") from None
