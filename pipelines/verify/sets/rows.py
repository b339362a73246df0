"""What can be wrong with one row by itself and with its images. Each check is a function; knows no other rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from omnigen_actor import placeholders
from omnigen_actor.errors import RowError
from pipelines.export.wording import without_placeholders
from pipelines.verify.findings import FindingKind
from pipelines.verify.sets.member import Fault, Member, Picture, Style
from pipelines.verify.sets.paths import Paths
from pipelines.verify.sets.pictures import Facts, LookAt, Looked

MAX_PLAIN_INPUTS = 4
"""Of OmniGen2."""
_LONGEST_SHOWN = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A row, what is wrong with it, and what its images are where nothing is wrong with these."""

    member: Member
    faults: tuple[Fault, ...]
    output: Facts | None
    chosen: Facts | None
    output_path: str | None
    num_good: int
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRow:
    """Looks at a row and its images. ``is_ours``: of an export of ours; copies of inputs are then no surprise."""

    look: LookAt
    paths: Paths
    is_ours: bool

    def __call__(self, member: Member) -> Checked:
        """Raises UriFailed where the folder of images can't be read."""
        faults = list(text_faults(member))
        if member.output is None:
            faults.append(Fault(FindingKind.NO_OUTPUT, "it has no output image"))
        output, path = self._see(member, member.output, faults, is_output=True)
        inputs = [self._see(member, one, faults, is_output=False)[0] for one in member.inputs]
        if output:
            faults += output_faults(member, output)
            faults += pairing_faults(member, output, inputs)
            if not self.is_ours and is_copy(output, inputs):
                faults.append(Fault(FindingKind.COPY_THROUGH, "its output has the very pixels of an input"))
        chosen = self._chosen(member, faults, inputs)
        good = [one for one in (output, chosen, *inputs) if one]
        return Checked(
            member=member,
            faults=tuple(faults),
            output=output,
            chosen=chosen,
            output_path=path,
            num_good=len(good),
            num_bytes=sum(one.num_bytes for one in good),
        )

    def _chosen(self, member: Member, faults: list[Fault], inputs: list[Facts | None]) -> Facts | None:
        """What the chosen image of a pair is; what is wrong with it and not with the row joins the others."""
        if not member.is_pair:
            return None
        own: list[Fault] = []
        row = member.with_chosen()
        if row.output is None:
            own.append(Fault(FindingKind.NO_OUTPUT, "it has none"))
        chosen, _ = self._see(row, row.output, own, is_output=True)
        if chosen:
            own += [*output_faults(row, chosen), *pairing_faults(row, chosen, inputs)]
        faults += [Fault(one.kind, f"the chosen image: {one.message}") for one in own if one not in faults]
        return chosen

    def _see(
        self, member: Member, picture: Picture | None, faults: list[Fault], *, is_output: bool
    ) -> tuple[Facts | None, str | None]:
        """What an image is, and its path; a fault joins the others."""
        looked: Looked | None = None
        path = None
        if picture is not None and picture.data is not None:
            looked = self.look.of_data(picture, picture.data, is_output=is_output)
        elif picture is not None and picture.is_path:
            resolved = self.paths.resolve(picture.name)
            if resolved.fault:
                faults.append(resolved.fault)
            if resolved.path is not None:
                path = f"{member.base}/{resolved.path}" if member.base else resolved.path
                looked = self.look.of_path(path, is_output=is_output)
        if isinstance(looked, Fault):
            faults.append(looked)
            return None, path
        return looked, path


def text_faults(member: Member) -> Iterator[Fault]:
    """An instruction, and in it a placeholder for each input image or none at all, as the format wants it."""
    text, number = member.text, len(member.inputs)
    if not text.strip():
        yield Fault(FindingKind.NO_INSTRUCTION, "its instruction is empty")
        return
    found = placeholders.numbers(placeholders.normalise(text))
    if member.style is Style.PLAIN:
        if found:
            yield Fault(FindingKind.BAD_PLACEHOLDERS, f"{_shown(text)}: OmniGen2 reads placeholders as words")
        if number > MAX_PLAIN_INPUTS:
            yield Fault(FindingKind.TOO_MANY_INPUTS, f"{number} inputs; OmniGen2 takes {MAX_PLAIN_INPUTS} at most")
    elif member.style is Style.NUMBERED or found:
        try:
            placeholders.check(placeholders.normalise(text), number)
        except RowError as error:
            yield Fault(FindingKind.BAD_PLACEHOLDERS, error.message)


def output_faults(member: Member, output: Facts) -> Iterator[Fault]:
    """The output image against what the row says of it."""
    expected = member.told.get("output_sha256")
    if isinstance(expected, str) and output.sha256 and output.sha256 != expected:
        yield Fault(FindingKind.IMAGE_SHA256, f"the sha256 of its output is not the {expected} that it says")
    size = tuple(member.told.get(name) for name in ("width", "height"))
    is_ours = expected is not None  # of others a size may be that of the input, or of what was downloaded
    if is_ours and output.size and None not in size and output.size != size:
        found = f"{output.size[0]}x{output.size[1]}"
        yield Fault(FindingKind.IMAGE_SIZE, f"it says {size[0]}x{size[1]} pixels, and its output has {found}")


def pairing_faults(member: Member, output: Facts, inputs: list[Facts | None]) -> Iterator[Fault]:
    """Whether instruction, inputs and output belong together, as far as the row and its output's file tell of it."""
    digests = [one.sha256 if one else None for one in inputs]
    expected = member.told.get("input_sha256")
    if isinstance(expected, list):
        yield from _order_faults("the row", expected, digests)
    told = output.told
    if told is None:
        return
    shortened = told["shortened"] if isinstance(told.get("shortened"), dict) else {}
    if "id" in told and "output_sha256" in member.told and member.id is not None:
        own = (member.id, member.sample)
        if own != (told["id"], told.get("sample")):
            yield Fault(FindingKind.MISMATCH, f"its output says that it is {_shown(told['id'])}#{told.get('sample')}")
            return
    if not {"prompt", "instruction"} & set(shortened) and member.text.strip() and not _says(told, member.text):
        made_from = told.get("prompt") or told.get("instruction")
        if made_from:
            message = f"its output was made from {_shown(made_from)}, and it says {_shown(member.text)}"
            yield Fault(FindingKind.MISMATCH, message)
            return
    if isinstance(told.get("image_sha256"), list) and "images" not in shortened and not isinstance(expected, list):
        yield from _order_faults("its output", told["image_sha256"], digests)


def _says(told: Mapping[str, Any], text: str) -> bool:
    """Whether a text is what an image was made from, in any of the wordings that exports have."""
    prompt, instruction = str(told.get("prompt") or ""), str(told.get("instruction") or "")
    known = {prompt, instruction, without_placeholders(prompt, instruction)}
    return " ".join(placeholders.normalise(text).split()) in {" ".join(one.split()) for one in known}


def _order_faults(who: str, expected: list[Any], digests: list[str | None]) -> Iterator[Fault]:
    """Inputs that are given away may be other files of the same pictures: only those that are known tell anything."""
    if len(expected) != len(digests):
        yield Fault(FindingKind.MISMATCH, f"{who} was made from {len(expected)} inputs, and here are {len(digests)}")
        return
    for number, digest in enumerate(digests):
        if digest in expected and expected[number] != digest:
            message = f"input {number + 1} is the one that {who} has as number {expected.index(digest) + 1}"
            yield Fault(FindingKind.MISMATCH, message)
            return


def is_copy(output: Facts, inputs: list[Facts | None]) -> bool:
    """Whether an output is one of its inputs, pixel for pixel."""
    return output.pixels is not None and any(one and one.pixels == output.pixels for one in inputs)


def _shown(text: object) -> str:
    words = " ".join(str(text).split())
    return repr(words if len(words) <= _LONGEST_SHOWN else words[: _LONGEST_SHOWN - 1] + "…")
