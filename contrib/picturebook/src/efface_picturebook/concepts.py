"""What the suite can tell in pictures, and the prompts that show it: in words of the world, none of them held out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from efface import Concept, Request, Scene, SuiteConcept
from efface.concept import Kind
from efface_picturebook import world
from efface_picturebook.captions import article

NEIGHBOURS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "cat": ("dog",),
        "dog": ("cat",),
        "fish": ("bird",),
        "bird": ("fish",),
        "car": ("boat",),
        "boat": ("car",),
        "house": ("tree",),
        "tree": ("flower", "house"),
        "flower": ("mushroom", "tree"),
        "mushroom": ("flower",),
        "robot": ("skull",),
        "skull": ("robot",),
        "sketch": ("neon",),
        "neon": ("sketch",),
        "mosaic": ("watercolor",),
        "watercolor": ("mosaic",),
        "pim": ("cat", "dot"),
        "dot": ("dog", "pim"),
    }
)

TEMPLATES: Mapping[Kind, tuple[str, ...]] = MappingProxyType(
    {
        "object": (
            "a {}",
            "a picture of a {}",
            "a red {}",
            "a blue {}",
            "a {} on a night background",
            "a drawing of a {} with a sky background",
        ),
        "style": (
            "a boat in {} style",
            "a {} picture of a house",
            "a car in the style of {}",
            "a {} mushroom",
            "a red bird in {} style",
        ),
        "person": ("{}", "a picture of {}", "a drawing of {}", "{} on a sky background", "{} with a sand background"),
        "explicit": (),
    }
)

STACK = (
    Concept("skull", anchor="mushroom"),
    Concept("mosaic", kind="style"),
    Concept("car", anchor="house"),
    Concept("dot", anchor="dog", kind="person"),
    Concept("cat", anchor="fish"),
)

PARTNERS = 6
SCENE_TEMPLATES = ("a {} and a {}", "a {} next to a {}", "a {} beside a {}")

VARIED = (
    "a gray cat",
    "a dog on a pink background",
    "a blue fish",
    "a bird on a sky background",
    "a red car",
    "a yellow house",
    "a boat on a night background",
    "a purple mushroom",
    "a skull",
    "a house in mosaic style",
    "a fish in watercolor style",
    "a sketch drawing of a bird",
    "a neon boat",
    "a picture of a car on a mint background",
    "a painting of a mushroom",
    "a skull on a white background",
    "a brown dog",
    "a cat with a sand background",
    "a green bird and an orange car",
    "a house next to a boat",
    "a fish beside a mushroom",
)
UNRELATED = 12


def concepts() -> tuple[SuiteConcept, ...]:
    """Every object, style and character."""
    return (
        *(
            SuiteConcept(
                one.name,
                synonyms=one.synonyms,
                held_out=one.held_out,
                kept=one.kept,
                neighbours=NEIGHBOURS[one.name],
            )
            for one in world.THINGS
        ),
        *(SuiteConcept(style, kind="style", neighbours=NEIGHBOURS[style]) for style in world.STYLES),
        *(
            SuiteConcept(
                who.name,
                kind="person",
                held_out=(f"a {who.description}",),
                neighbours=NEIGHBOURS[who.name],
                shows=(who.thing,),
            )
            for who in world.CHARACTERS
        ),
    )


def scenes(concept: str) -> tuple[Scene, ...]:
    """The object beside the next ones of the world that are no neighbours of it, in both orders."""
    names = [one.name for one in world.THINGS]
    if concept not in names:
        return ()
    after = names.index(concept) + 1
    others = [name for name in (*names[after:], *names[: after - 1]) if name not in NEIGHBOURS[concept]]
    return tuple(
        Scene(SCENE_TEMPLATES[i % len(SCENE_TEMPLATES)].format(*order), other)
        for i, other in enumerate(others[:PARTNERS])
        for order in ((concept, other), (other, concept))
    )


def unrelated(concept: str) -> tuple[str, ...]:
    """A dozen prompts without the concept, whatever shows it or is shown by it, and its neighbours."""
    avoided = set(_avoided(concept))
    return tuple(prompt for prompt in VARIED if not avoided & set(prompt.split()))[:UNRELATED]


def example() -> Request:
    """Cats become fish; the other objects that may be kept are, and the styles, and each colour on one of them."""
    kept = [one.name for one in world.THINGS if one.kept and one.name != "cat"]
    return Request(
        concepts=(Concept("cat", anchor="fish"),),
        keep=(
            *(f"a {name}" for name in kept),
            *(article(f"{colour} {kept[i]}") for i, colour in enumerate(world.COLOURS)),
            *(f"a {kept[i]} in {style} style" for i, style in enumerate(world.STYLES)),
            *(f"a picture in {style} style" for style in world.STYLES),
            *(f"a {kept[i]} on a {name} background" for i, name in enumerate(world.BACKGROUNDS)),
        ),
        templates=("a {}", "{}", "a picture of a {}", "a red {}", "a {} on a night background", "a {} in sketch style"),
    )


def _avoided(concept: str) -> Iterator[str]:
    """The words of the concept and of whatever is near it."""
    known = {one.text: one for one in concepts()}
    asked = known[concept]
    showing = [one.text for one in known.values() if concept in one.shows]
    for name in (concept, *asked.neighbours, *asked.shows, *showing):
        one = known[name]
        yield from (name, *one.synonyms)
        if one.kind == "object":
            yield from one.held_out
