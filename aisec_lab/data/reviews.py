"""The sentences of the set `reviews`: `python -m aisec_lab.data.reviews` prints the content of `reviews.txt`.

Made up, for studies that have to work offline: templates filled with words at random. Each sentence says what its
label says; no customer wrote any, and no claim about real reviews can rest on them.
"""

import random

EACH = 250  # sentences of each class
SEED = 0
THINGS = (
    "coffee", "room", "battery", "screen", "delivery", "waiter", "receptionist", "soup", "mattress", "sound", "price",
    "manual", "driver", "parcel", "breakfast", "keyboard", "camera", "shower", "bread", "helpdesk", "view", "packaging",
    "menu", "lamp", "suitcase", "kettle", "jacket", "dessert", "garden", "printer",
)  # fmt: skip
GOOD = (
    "excellent", "lovely", "superb", "splendid", "marvellous", "reliable", "fresh", "comfortable", "perfect",
    "charming", "delightful", "sturdy", "helpful", "wonderful", "brilliant", "pleasant", "spotless", "generous",
    "great", "good",
)  # fmt: skip
BAD = (
    "awful", "rude", "slow", "broken", "stale", "dirty", "noisy", "useless", "terrible", "flimsy", "disappointing",
    "horrible", "cold", "bland", "poor", "faulty", "dreadful", "careless", "overpriced", "bad",
)  # fmt: skip
PRAISE = (
    "we will come back", "I recommend it", "it was worth every penny", "my family loved it", "I would buy it again",
    "I am very happy", "we enjoyed every minute", "five stars from me",
)  # fmt: skip
BLAME = (
    "we will never come back", "I regret the purchase", "it was a waste of money", "my family hated it",
    "I want a refund", "I am very angry", "we left early", "one star is too much",
)  # fmt: skip
WHEN = (
    "On Tuesday", "Last spring", "In August", "This weekend", "Yesterday", "Before Christmas", "On our trip",
    "After the update", "For the office", "With my sister", "At noon", "On the second day",
)  # fmt: skip
TEMPLATES = (
    "{when} the {thing} was {ours} and the {other} was {ours2}, {verdict}.",
    "{when} I tried the {thing}: {ours}, and the {other} too, so {verdict}.",
    "I expected a {theirs} {thing} but it was {ours}, {verdict}.",
    "The {thing} was a little {theirs}, but the {other} was {ours} and {verdict}.",
    "{when} we found the {thing} really {ours}, {ours2} even, and {verdict}.",
    "Friends told us that the {thing} is {theirs}, but ours was {ours} and the {other} {ours2}.",
    "What a {ours} {thing}, and such a {ours2} {other} at this place.",
    "{when} they brought a {ours} {thing} with a {ours2} {other}, {verdict}.",
)


def sentences() -> list[tuple[str, str]]:
    """All (label, sentence) pairs, no sentence twice, in the order of the file."""
    rng = random.Random(SEED)
    found: dict[str, str] = {}
    for label, ours, theirs, verdicts in (("negative", BAD, GOOD, BLAME), ("positive", GOOD, BAD, PRAISE)):
        wanted = len(found) + EACH
        while len(found) < wanted:
            thing, other = rng.sample(THINGS, 2)
            first, second = rng.sample(ours, 2)
            text = rng.choice(TEMPLATES).format(
                when=rng.choice(WHEN),
                thing=thing,
                other=other,
                ours=first,
                ours2=second,
                theirs=rng.choice(theirs),
                verdict=rng.choice(verdicts),
            )
            found[text] = label
    pairs = [(label, text) for text, label in found.items()]
    rng.shuffle(pairs)
    return pairs


if __name__ == "__main__":
    for line in sentences():
        print(*line, sep="\t")
