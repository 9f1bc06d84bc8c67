"""Everything picturebook can name: objects with their synonyms, colours, backgrounds, styles, characters."""

from __future__ import annotations

from dataclasses import dataclass

RGB = tuple[int, int, int]


@dataclass(frozen=True)
class Thing:
    """One object the world draws.

    `synonyms` may be used in requests; `held_out` ones are learnt but kept for measuring generality.
    `natural` are the colours it mostly has when nobody names one (none: its own fixed colour).
    `kept` is false for the objects that no keep list may hold, so that specificity on them is honest.
    """

    name: str
    synonyms: tuple[str, ...]
    held_out: tuple[str, ...]
    natural: tuple[str, ...]
    kept: bool = True

    @property
    def words(self) -> tuple[str, ...]:
        """The name and every synonym, held-out ones last."""
        return (self.name, *self.synonyms, *self.held_out)

    @property
    def requestable(self) -> tuple[str, ...]:
        """What a request, template or keep list may say."""
        return (self.name, *self.synonyms)


@dataclass(frozen=True)
class Character:
    """Somebody with a name, who can also be described by parts."""

    name: str
    thing: str
    colour: str
    pattern: str
    wears: str
    wears_colour: str

    @property
    def description(self) -> str:
        """The same character without the name: 'striped cat with a red hat'."""
        return f"{self.pattern} {self.thing} with a {self.wears_colour} {self.wears}"


THINGS = (
    Thing("cat", ("kitty", "kitten"), ("feline", "tomcat"), ("orange", "gray")),
    Thing("dog", ("puppy", "hound"), ("pooch", "pup"), ("brown", "gray")),
    Thing("fish", ("trout", "salmon"), ("goldfish", "minnow"), ("orange", "blue")),
    Thing("bird", ("sparrow", "robin"), ("finch", "songbird"), ("blue", "yellow")),
    Thing("car", ("automobile", "sedan"), ("taxi", "motorcar"), ("red", "blue")),
    Thing("house", ("cottage", "home"), ("cabin", "hut"), ("yellow", "red")),
    Thing("tree", ("pine", "spruce"), ("fir", "conifer"), ("green",), kept=False),
    Thing("flower", ("blossom", "daisy"), ("bloom", "tulip"), ("purple", "red"), kept=False),
    Thing("boat", ("ship", "sailboat"), ("yacht", "dinghy"), ("red", "brown")),
    Thing("mushroom", ("toadstool", "fungus"), ("shroom", "truffle"), ("red", "brown")),
    Thing("robot", ("android", "droid"), ("automaton", "bot"), ("gray", "blue"), kept=False),
    Thing("skull", ("cranium", "skeleton"), ("bones", "deathhead"), ()),
)

COLOURS: dict[str, RGB] = {
    "red": (220, 45, 45),
    "blue": (50, 95, 225),
    "green": (50, 165, 70),
    "yellow": (245, 210, 50),
    "purple": (150, 65, 190),
    "orange": (245, 140, 40),
    "gray": (140, 145, 150),
    "brown": (135, 85, 45),
}

BACKGROUNDS: dict[str, RGB] = {
    "white": (250, 250, 250),
    "pink": (250, 205, 215),
    "mint": (195, 238, 210),
    "sky": (185, 218, 248),
    "sand": (236, 218, 168),
    "night": (38, 38, 78),
}

STYLES = ("sketch", "mosaic", "watercolor", "neon")
PLAIN = "plain"
PATTERNS = ("striped", "spotted")
GARMENTS = ("hat", "scarf")
DRESSED = ("cat", "dog")

CHARACTERS = (
    Character("pim", "cat", "orange", "striped", "hat", "red"),
    Character("dot", "dog", "gray", "spotted", "scarf", "blue"),
)

MEDIA = ("picture", "drawing", "image", "photo", "painting")

GRAMMAR = (
    *("a", "an", "the", "of", "in", "on", "and", "with", "style", "background"),
    *("left", "right", "next", "to", "beside"),
)


def thing(name: str) -> Thing:
    """The object called `name` (not a synonym)."""
    for one in THINGS:
        if one.name == name:
            return one
    raise KeyError(f"No object {name!r} in the picturebook; it has: {', '.join(t.name for t in THINGS)}")


def words() -> tuple[str, ...]:
    """Every word a caption can hold, once, in a fixed order."""
    spoken = [
        *GRAMMAR,
        *MEDIA,
        *(word for one in THINGS for word in one.words),
        *COLOURS,
        *BACKGROUNDS,
        *STYLES,
        *PATTERNS,
        *GARMENTS,
        *(who.name for who in CHARACTERS),
    ]
    return tuple(dict.fromkeys(spoken))
