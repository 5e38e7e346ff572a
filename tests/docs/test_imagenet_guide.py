"""docs/imagenet.md, typed from each source to a trained and evaluated model, on an ImageNet of four classes.

The services are stand-ins on this machine, asked by the real clients: a web seed, Kaggle's and Hugging Face's calls, moto's S3.
"""

import json
import logging
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.docs.conftest import OpenShell
from tests.docs.guides import ROOT
from tests.docs.scenarios import Added, Scenario, Swap
from tests.scale_models import scale_model, write_folders, write_huggingface, write_imagefolder, write_kaggle_zip, write_official
from tests.unit.imagenet.fetch.stand_ins import hugging_face, kaggle, serving, write_torrent
from tests.unit.imagenet.sets.small_sets import imagenette_archive, imagenette_files

GUIDE = "docs/imagenet.md"
TOKEN = "hf_5ec2e75ec2e75ec2e7"
MODEL = scale_model(4)
OTHER_SUMS = "the archives are scale models, whose sums and sizes nobody published"
TINY = (
    "model=small_resnet model.width=4 batch_size=4 eval_batch_size=4 data.image_size=32 data.eval_image_size=32 data.resize_size=36"
)
SMALL = "a model and images for two processor cores, a batch that twelve images have"
ONE_EPOCH = "epochs=1 schedule.warmup_epochs=0"

OFFICIAL = Scenario(
    GUIDE,
    ("Space and time", "The official archives", "Verify", "Write .beton files"),
    (
        Swap("/datasets/imagenet-download", "{source}", "scale models lie in a scratch folder"),
        Added("source=", "checksum=off", OTHER_SUMS),
        Added("src.train", TINY, SMALL),
    ),
)
SERVICES = {
    service: Scenario(
        GUIDE,
        (section,),
        (
            Swap(folder, "{source}", "a scratch folder"),
            Added("source=", "checksum=off", OTHER_SUMS),
            *more,
        ),
    )
    for service, section, folder, more in [
        ("kaggle", "Kaggle", "/datasets/kaggle", ()),
        ("torrent", "Academic Torrents", "/datasets/torrent", (Added("fetch=", "origin={torrents}", "torrents of the models"),)),
        ("huggingface", "Hugging Face", "/datasets/imagenet-1k", (Added("src.train", TINY, SMALL),)),
        ("s3", "A copy in S3", "/datasets/from-s3", ()),
    ]
}
COLLEAGUE = Scenario(
    GUIDE,
    ("A colleague's folder",),
    (Swap("/shared/imagenet", "{source}", "a scratch folder"), Added("src.train", TINY, SMALL)),
)
IMAGENETTE = Scenario(
    GUIDE,
    ("A small set first",),
    (
        Added("src.prepare", "checksum=off expect=any", "an archive of 50 images stands for the published one"),
        Swap(
            "epochs=5", "epochs=1 schedule.warmup_epochs=0 model.width=4 batch_size=8 data.image_size=32 data.resize_size=36", SMALL
        ),
    ),
    long=True,
)
RECIPE = Scenario(
    GUIDE,
    ("The official archives", "Write .beton files", "Train a recipe", "Evaluate"),
    (
        Swap("/datasets/imagenet-download", "{source}", "scale models lie in a scratch folder"),
        Added("source=", "checksum=off", OTHER_SUMS),
        Added("src.train", TINY, SMALL),
        Added("run_name=adam", ONE_EPOCH, "ninety epochs of three steps show no more"),
    ),
    long=True,
)
SCENARIOS = (OFFICIAL, *SERVICES.values(), COLLEAGUE, IMAGENETTE, RECIPE)

# botocore's own, of Python versions to come; moto's server threads
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


def images_of(target: Path) -> set[str]:
    return {str(path.relative_to(target)) for split in ("train", "val") for path in (target / split).rglob("*.JPEG")}


WANTED = {name for name in MODEL.files if not name.startswith("test/")}


def test_the_official_archives(open_shell: OpenShell, tmp_path: Path) -> None:
    shell = open_shell()
    done = OFFICIAL.play(shell, source=write_official(tmp_path / "official", MODEL))
    assert images_of(shell.project / "data/Imagenet") == WANTED
    planned, *_, verified, written = done
    assert "inodes" in planned.stderr + planned.stdout and "space" in planned.stderr + planned.stdout
    assert json.loads(verified.stdout.splitlines()[-1])["verified"] == 3
    assert {file.name for file in (shell.project / "data/ffcv").iterdir()} >= {"train.beton", "val.beton"}
    assert json.loads(written.stdout.splitlines()[-1])["splits"]["train"]["images"] == 12


def test_kaggle(open_shell: OpenShell, tmp_path: Path) -> None:
    write_kaggle_zip(tmp_path, MODEL)
    with kaggle(next(tmp_path.glob("*.zip")).read_bytes(), TOKEN):
        shell = open_shell({"KAGGLE_API_ENVIRONMENT": "TEST", "KAGGLE_API_TOKEN": TOKEN})
        SERVICES["kaggle"].play(shell, source=tmp_path / "kaggle")
    assert images_of(shell.project / "data/Imagenet") == WANTED


def test_academic_torrents(open_shell: OpenShell, tmp_path: Path) -> None:
    made = write_official(tmp_path / "made", MODEL, test=False)
    (tmp_path / "torrents").mkdir()
    with serving() as server:
        for path in sorted(made.iterdir()):
            server.files[f"/{path.name}"] = path.read_bytes()
            write_torrent(tmp_path / f"torrents/{path.name}.torrent", path.name, path.read_bytes(), [f"{server.url}/{path.name}"])
        shell = open_shell()
        SERVICES["torrent"].play(shell, source=tmp_path / "down", torrents=tmp_path / "torrents")
    assert images_of(shell.project / "data/Imagenet") == WANTED


def test_hugging_face(open_shell: OpenShell, tmp_path: Path) -> None:
    write_huggingface(tmp_path / "made", MODEL)
    files = {f"data/{path.name}": path.read_bytes() for path in (tmp_path / "made").rglob("*.parquet")}
    with hugging_face(files, TOKEN) as hub:
        shell = open_shell({"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN})
        SERVICES["huggingface"].play(shell, source=tmp_path / "down")
    assert images_of(shell.project / "data/Imagenet") == WANTED


def test_a_copy_in_s3(open_shell: OpenShell, tmp_path: Path) -> None:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        who = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": "us-east-1"}
        client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", **who)
        client.create_bucket(Bucket="my-bucket")
        folder = write_folders(tmp_path / "made", MODEL)
        for path in folder.rglob("*.*"):
            if path.is_file():
                client.put_object(Bucket="my-bucket", Key=f"imagenet/{path.relative_to(folder)}", Body=path.read_bytes())
        variables = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", **{name.upper(): value for name, value in who.items()}}
        shell = open_shell(variables | {"AWS_DEFAULT_REGION": "us-east-1"})
        SERVICES["s3"].play(shell, source=tmp_path / "down")
    finally:
        server.stop()
    assert images_of(shell.project / "data/Imagenet") == WANTED


def test_a_colleagues_folder(open_shell: OpenShell, tmp_path: Path) -> None:
    shell = open_shell()
    COLLEAGUE.play(shell, source=write_imagefolder(tmp_path / "theirs", MODEL))
    assert json.loads((shell.project / "their-imagenet.json").read_text())
    assert images_of(shell.project / "data/Imagenet") == WANTED


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_small_set_first(open_shell: OpenShell) -> None:
    shell = open_shell()
    (shell.project / "data").mkdir()
    imagenette_archive(shell.project / "data/imagenette2-160.tgz", imagenette_files())
    *_, evaluated = IMAGENETTE.play(shell)
    assert json.loads(evaluated.stdout.splitlines()[-1])["images"] == 10


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_recipe_trained_and_evaluated(open_shell: OpenShell, tmp_path: Path) -> None:
    shell = open_shell()
    *_, trained, evaluated = RECIPE.play(shell, source=write_official(tmp_path / "official", MODEL))
    trained_result, result = (json.loads(done.stdout.splitlines()[-1]) for done in (trained, evaluated))
    assert result["images"] == 6 and result["val_acc1"] == trained_result["val_acc1"]
    assert (shell.project / "runs/quick/checkpoints/last.ckpt").exists()


def test_the_services_steps_in_the_guide_are_those_of_the_program() -> None:
    guide = (ROOT / GUIDE).read_text()
    from src.imagenet.fetch import huggingface
    from src.imagenet.fetch import kaggle as client

    told = client.steps(client.COMPETITION) + huggingface.steps(huggingface.REPOSITORY)
    addresses = [word.rstrip(".,)") for word in told.split() if word.startswith("https://")]
    assert len(addresses) >= 6
    assert [address for address in addresses if address not in guide] == []
