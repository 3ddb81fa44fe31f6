"""The file of the AudioSet ontology: what it holds, and what is wrong with it."""

import json
import os

from ._base import check_distinct

_TEXTS = ("id", "name", "description")


def find_present(path, name, usual):
    """Return the path of a file that is there."""
    path = os.path.expanduser(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"{name}={os.fspath(path)!r} is no file: pass the path of {usual}, or let "
            "AudioSetOntology.fetch() download it"
        )
    return path


def parse_nodes(path):
    """Return what the JSON of a file says."""
    with open(path, "rb") as file:
        content = file.read()
    mend = "download ontology.json again, or let AudioSetOntology.fetch() do it"
    if content.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise ValueError(
            f"{path} is a web page, not the ontology: download the file itself (its "
            "'raw' form), or let AudioSetOntology.fetch() do it"
        )
    try:
        return json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text in UTF-8: {mend}") from error
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}, line {error.lineno}: {error.msg}, so it is no JSON: {mend}"
        ) from error


def check_layout(nodes, source):
    """Raise if the nodes are not what AudioSet's file holds."""
    if not isinstance(nodes, list) or not nodes:
        found = "an empty list" if nodes == [] else f"a {type(nodes).__name__}"
        raise ValueError(
            f"{source} holds {found} instead of the ontology, which is a list of "
            "nodes: pass ontology.json as AudioSet publishes it"
        )
    for index, node in enumerate(nodes):
        if not isinstance(node, dict):
            raise ValueError(
                f"{source}, node {index} is a {type(node).__name__}: it must be an "
                "object with id, name, description and child_ids"
            )
        for key in (*_TEXTS, "child_ids"):
            if key not in node:
                raise ValueError(
                    f"{source}, node {index} ({node.get('name', 'no name')}) lacks "
                    f"{key!r}: a node has id, name, description and child_ids"
                )
            _check_value(node[key], f"{source}, node {index}: {key}", key)


def _check_value(value, where, key):
    if key == "child_ids":
        if not isinstance(value, list) or not all(isinstance(i, str) for i in value):
            raise ValueError(f"{where} is {value!r}: it must be a list of ids")
        check_distinct(value, where)
    elif not isinstance(value, str) or not (value.strip() or key == "description"):
        raise ValueError(f"{where} is {value!r}: it must be a text")


def link_nodes(nodes, source):
    """Return the edges, as pairs of positions."""
    places = {node["id"]: place for place, node in enumerate(nodes)}
    edges = []
    for place, node in enumerate(nodes):
        for child in node["child_ids"]:
            if child not in places:
                raise ValueError(
                    f"{source}: {node['name']!r} has the child {child!r}, which is "
                    "nowhere: add that node or drop it from child_ids"
                )
            edges.append((place, places[child]))
    return edges
