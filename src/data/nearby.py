"""Bring the data near: copies on a node's own disk (data.copy_to), or the images in its memory (data.in_memory)."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from src.batch import Source
from src.config.data import BetonData, DataConfig, FolderData, ParquetData, StoredData, SyntheticData, TarData
from src.data.beton.sidecar import sidecar_path
from src.data.build import Split, stored_files
from src.data.copying import Copy, copy_missing, folder_of_copies
from src.data.sources.beton import BetonSource
from src.data.sources.folder import FolderSource
from src.data.sources.in_memory import InMemory, Packed, Place, load_file, pack

Report = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]  # what is done -> who is told how far it is


def copy_files(config: DataConfig, splits: tuple[Split, ...], *, threads: int, report: Report) -> DataConfig:
    """Copy the files of sources that are files, and return the configuration that names the copies. Others stay as they are.

    Raises:
        ConfigError: where a file is missing, or there is no room.
    """
    if not isinstance(config, BetonData | ParquetData | TarData) or config.copy_to is None:
        return config
    copies: list[Copy] = []
    places: dict[str, str] = {}
    for split in splits:
        files = stored_files(config, split)
        folder = folder_of_copies(Path(config.copy_to).expanduser(), files[0].parent)
        extra = [sidecar_path(file) for file in files if isinstance(config, BetonData) and sidecar_path(file).exists()]
        copies += [Copy(str(file), str(folder / file.name)) for file in (*extra, *files)]
        wanted = Path(config.train_path if split == "train" else config.val_path).name
        places[f"{split}_path"] = str(folder / wanted)
    with report("copying data (bytes)") as progress:
        copy_missing(copies, threads=threads, progress=progress)
    return config.model_copy(update=places)


def copy_images(config: DataConfig, source: Source, *, threads: int, report: Report) -> None:
    """Copy the chosen images of a folder, and let the source read the copies. Other sources stay as they are."""
    if not isinstance(config, FolderData) or config.copy_to is None:
        return
    assert isinstance(source, FolderSource)
    target = folder_of_copies(Path(config.copy_to).expanduser(), source.root)
    copies = [
        Copy(source.path(index), str(target / source.relative(index))) for index in range(len(source)) if source.sizes[index, 0]
    ]
    with report("copying data (bytes)") as progress:
        copy_missing(copies, threads=threads, progress=progress)
    source.read_from(target)


def load(config: DataConfig, source: Source, *, engine: str, threads: int, report: Report) -> Packed:
    """Read what is needed into this process's memory: for FFCV its whole file, else the chosen images.

    Raises:
        ConfigError: if the memory does not suffice.
    """
    with report("loading images into memory") as progress:
        if engine == "ffcv":
            assert isinstance(source, BetonSource)
            return load_file(source.path, progress=progress)
        return pack(source, threads=threads, progress=progress)


def mapped(source: Source, place: Place, *, engine: str) -> Source:
    """Return the source that reads from memory which this node's first rank has loaded."""
    if engine == "ffcv":
        assert isinstance(source, BetonSource)
        source.read_from(Path(place.path))
        return source
    return InMemory(source, place)


def wants_memory(config: DataConfig) -> bool:
    """Return whether the images are to be held in memory."""
    match config:
        case SyntheticData():
            return False
        case StoredData():
            return config.in_memory
