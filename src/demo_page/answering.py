"""A trained model as the page asks it: an image's bytes in, labels, pixels and times out."""

import time

from src.batch import DataError, Encoded
from src.demo_page.pictures import DAMAGED, look, trust_the_cap
from src.demo_page.words import TOP, Answer, Refused
from src.predictor import Predictor
from src.session import Place
from src.trained import Trained, build_trained, labels_of
from src.training.precision import choose_precision


class TrainedAnswers:
    """Answers from a model with its weights.

    Args:
        trained: what was opened; its classes are known.
        place: this process.
        max_pixels: of an image.

    Raises:
        ConfigError: the weights are of another model.
    """

    def __init__(self, trained: Trained, place: Place, max_pixels: int) -> None:
        assert trained.classes is not None
        trust_the_cap()
        precision = choose_precision(trained.config.precision, place.device)
        model = build_trained(trained, precision, place.device)
        self._predictor = Predictor(trained.config, model, precision, place.device)
        self._labels, self._max_pixels = labels_of(trained.classes), max_pixels
        self._resize_size = trained.config.data.resize_size

    def __call__(self, data: bytes) -> Answer:
        """Answer one image. Called from several threads.

        Raises:
            Refused: it is no image, too large, or damaged.
        """
        looked = look(data, self._max_pixels, self._resize_size)
        begun = time.perf_counter()
        try:
            pixels = self._predictor.pixels([Encoded(data, "codestream", looked.width, looked.height)])
        except DataError as error:
            raise Refused(DAMAGED) from error
        prepared = time.perf_counter()
        logits = self._predictor.logits_of(pixels)[0]
        answered = time.perf_counter()
        shares, labels = logits.double().softmax(0).topk(min(TOP, len(self._labels)))
        top = tuple((self._labels[label], share) for label, share in zip(labels.tolist(), shares.tolist(), strict=True))
        crop = pixels[0].permute(1, 2, 0).cpu().contiguous().numpy()
        return Answer(top, crop, prepared - begun, answered - prepared, looked.notes)
