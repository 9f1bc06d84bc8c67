"""Searches for inputs that bring an erased concept back: how well an erasure holds against one who knows it."""

from efface.attack.attacking import SEARCHES as SEARCHES
from efface.attack.attacking import Attack as Attack
from efface.attack.attacking import attack as attack
from efface.attack.attacking import search_of as search_of
from efface.attack.attacking import template_for as template_for
