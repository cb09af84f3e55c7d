"""Chat templates of strangers: what leaves the sandbox, does not end or has a path for a name is refused at load."""

import json
import os
import sys
import time
from pathlib import Path

import hostile
import pytest
from transformers import AutoTokenizer

from hf_tuner.config import Run
from hf_tuner.errors import ArtifactError, EnvironmentFault
from hf_tuner.models import templates
from hf_tuner.models.processors import load_processor
from hf_tuner.models.templates import CLOCK, LONGEST, TRIAL, check_templates, render

ORDINARY = (
    "{%- for m in messages %}<|{{ m['role'] }}|>\n{% generation %}{{ m['content'] }}{% endgeneration %}"
    "{% if loop.last and add_generation_prompt %}<|assistant|>{% endif %}{% endfor %}"
)
INJECTIONS = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.mkdir('MARKER') }}",
    "{{ ''['_' * 2 ~ 'class' ~ '_' * 2] }}",
    "{% set a = '_' * 2 %}{{ (cycler|attr(a ~ 'init' ~ a))|attr(a ~ 'globals' ~ a) }}",
    "{% set a = '_' * 2 %}{{ (cycler|attr(a ~ 'init' ~ a) |attr(a ~ 'globals' ~ a)).os.mkdir('MARKER') }}",
    "{{ ('{0.' ~ '_' * 2 ~ 'class' ~ '_' * 2 ~ '}').format(messages) }}",
    "{{ ''['\\x5f\\x5fclass\\x5f\\x5f'] }}",
    "{{ ''|attr('\\u005f_class__') }}",
    "{{ messages|map(attribute='__class__')|list }}",
    "{{ raise_exception.__globals__['sys'].modules['os'].mkdir('MARKER') }}",
    "{% for k in messages %}{{ messages.append(k) }}{% endfor %}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os.mkdir('MARKER') }}",
]
WITHOUT_END = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{{ ('a' * 10 ** 9)|length }}",
    "{% macro again() %}{{ again() }}{{ again() }}{% endmacro %}{{ again() }}",
    "{% set ns = namespace(t='aaaaaaaa') %}{% for i in range(40) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}{{ ns.t }}",
]


def outcome(template: str) -> str:
    """What comes of a template: "refused" at load, or the text that it gives to two messages."""
    try:
        check_templates(template, "stranger/model")
        return render(template, TRIAL)
    except ArtifactError:
        return "refused"
    except ValueError:
        return "refuses these messages"


@pytest.mark.fault(68, "S6")
@pytest.mark.parametrize("template", INJECTIONS)
def test_nothing_of_python_is_reached(template: str, tmp_path: Path) -> None:
    """Internals are never run nor printed, spelt out or put together."""
    said = outcome(template.replace("MARKER", str(tmp_path / "marker")))
    assert said in ("refused", "", "refuses these messages"), said
    assert not (tmp_path / "marker").exists()


def test_an_injection_would_work_without_the_sandbox(tmp_path: Path) -> None:
    """In plain jinja2 the marker appears: the test above can fail."""
    from jinja2 import Environment

    text = INJECTIONS[1].replace("MARKER", str(tmp_path / "marker"))
    Environment().from_string(text).render()  # noqa: S701 - what must not be done
    assert (tmp_path / "marker").exists()


@pytest.mark.fault(68, "S6")
@pytest.mark.parametrize("template", WITHOUT_END)
def test_what_does_not_end_is_ended(template: str) -> None:
    """Five seconds and half a gigabyte, in a process of its own; then exit 4."""
    start = time.monotonic()
    with pytest.raises(ArtifactError, match=r"does not end within 5 seconds|takes too much memory|without end"):
        check_templates(template, "stranger/model")
    assert time.monotonic() - start < CLOCK  # of its own time it has five; the machine may be busy


@pytest.mark.fault(68, 71)
def test_a_template_sees_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even code that left the sandbox would find an empty environment."""
    import subprocess

    monkeypatch.setenv("HF_TOKEN", "hf_CANARY")
    seen = {}
    real = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: seen.update(k) or real(*a, **k))
    assert render("{{ 1 + 1 }}", []) == "2"
    assert seen["env"] == {} and os.environ["HF_TOKEN"]


def python(path: Path, script: str) -> str:
    """A program that stands for Python."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_a_machine_that_cannot_render_is_not_the_models_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """jinja2 is found wherever it is installed; without it, or with a Python that does not start, exit 3."""
    alone = python(tmp_path / "alone", f'exec {sys.executable} -S "$@"')  # sees no installed package
    monkeypatch.setattr(sys, "executable", alone)
    assert render("{{ 1 + 1 }}", []) == "2"
    monkeypatch.setattr(templates, "_packages", lambda: [])
    with pytest.raises(EnvironmentFault, match=r"No module named 'jinja2'\): pip install jinja2"):
        check_templates(ORDINARY + "{# not rendered before #}", "stranger/model")
    broken = python(tmp_path / "broken", "echo error while loading shared libraries: libpython3.so >&2; exit 127")
    monkeypatch.setattr(sys, "executable", broken)
    with pytest.raises(EnvironmentFault, match="loading shared libraries"):
        render("{{ 1 + 1 }}", [])
    monkeypatch.setattr(templates, "CLOCK", 0.2)
    monkeypatch.setattr(sys, "executable", python(tmp_path / "slow", "exec sleep 5"))
    with pytest.raises(EnvironmentFault, match="the machine is too busy"):
        render("{{ 1 + 1 }}", [])


@pytest.mark.fault(68, "S7")
@pytest.mark.parametrize("name", ["../../x", "/etc/x", "a/b", "a\0b", "", "a" * 65, "..", "a b"])
def test_a_name_that_could_be_a_path_is_refused_at_load(name: str) -> None:
    """Not first when the tokenizer is saved, after hours of training."""
    with pytest.raises(ArtifactError, match="could be a path"):
        check_templates({"default": ORDINARY, name: ORDINARY}, "stranger/model")


@pytest.mark.fault(68)
def test_length_and_number_are_bounded() -> None:
    with pytest.raises(ArtifactError, match="longer than 64,000 bytes"):
        check_templates(ORDINARY + "{#" + "x" * LONGEST + "#}", "stranger/model")
    with pytest.raises(ArtifactError, match="17 chat templates"):
        check_templates({f"t{i}": ORDINARY for i in range(17)}, "stranger/model")
    with pytest.raises(ArtifactError, match="is not a template"):
        check_templates("{% for", "stranger/model")


def test_ordinary_templates_pass() -> None:
    """Loops, blocks of what the assistant says, the date, JSON, and templates that insist on other messages."""
    assert render(ORDINARY, TRIAL, add_generation_prompt=True).endswith("<|assistant|>")
    for template in (
        ORDINARY,
        "{{ strftime_now('%Y') }}{{ messages|tojson(indent=2) }}",
        "{{ raise_exception('roles must alternate') }}",
        "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.content.strip() }}{% endfor %}",
        "{{ messages[7].content }}",
        "{{ messages[0].content|replace('__init__', '')|default('__none__') }}",
        "{{ 'Use __init__ methods' }}{# not __class__ #} and __name__ {{ '\\x5f' }}",
    ):
        check_templates(template, "stranger/model")
    check_templates(None, "stranger/model")


PLACES = {
    "tokenizer_config.json": lambda folder, text: rewrite(folder / "tokenizer_config.json", chat_template=text),
    "list of names": lambda folder, text: rewrite(
        folder / "tokenizer_config.json", chat_template=[{"name": "default", "template": text}]
    ),
    "chat_template.jinja": lambda folder, text: (folder / "chat_template.jinja").write_text(text),
    "additional_chat_templates": lambda folder, text: beside(folder, text),
}


def rewrite(path: Path, **changes: object) -> None:
    """Change keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def beside(folder: Path, text: str) -> None:
    """A template under a name of its own, as transformers saves them."""
    (folder / "chat_template.jinja").write_text(ORDINARY)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool.jinja").write_text(text)


@pytest.mark.fault(68, "S6", "S7")
@pytest.mark.parametrize("place", PLACES)
def test_templates_are_found_wherever_they_lie(place: str, tiny_model: Path, tmp_path: Path) -> None:
    """Each of the four places a tokenizer may bring a template in."""
    good = hostile.copied(tiny_model, tmp_path / "good")
    PLACES[place](good, ORDINARY)
    assert load_processor(Run(model=str(good))).chat_template
    bad = hostile.copied(tiny_model, tmp_path / "bad")
    PLACES[place](bad, "{{ cycler.__init__ }}")
    with pytest.raises(ArtifactError, match="reaches for Python's internals"):
        load_processor(Run(model=str(bad)))
    huge = hostile.copied(tiny_model, tmp_path / "huge")
    PLACES[place](huge, "x" * (LONGEST + 1))
    with pytest.raises(ArtifactError, match=r"at most 64,000|longer than 64,000"):
        load_processor(Run(model=str(huge)))


@pytest.mark.fault("S7")
def test_a_path_as_name_is_refused_when_the_tokenizer_is_loaded(tiny_model: Path, tmp_path: Path) -> None:
    """The plain library loads it, and fails when it saves."""
    folder = hostile.copied(tiny_model, tmp_path / "model")
    rewrite(folder / "tokenizer_config.json", chat_template=[{"name": "../../x", "template": ORDINARY}])
    assert "../../x" in AutoTokenizer.from_pretrained(folder).chat_template
    with pytest.raises(ArtifactError, match="could be a path"):
        load_processor(Run(model=str(folder)))


@pytest.mark.parametrize(
    "template",
    [
        "{% macro say(m) %}<A>{% generation %}{{ m['content'] }}{% endgeneration %}{% endmacro %}"
        "{% for m in messages %}{{ say(m) }}{% endfor %}",
        "{% set out %}{% generation %}{{ messages[1]['content'] }}{% endgeneration %}{% endset %}<U>{{ out }}",
    ],
)
def test_generation_marks_whose_text_ends_up_elsewhere_are_refused(template: str) -> None:
    with pytest.raises(ValueError, match="inside a macro or a set block"):
        render(template, TRIAL)
