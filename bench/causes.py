"""Cross-validates the rules for causes: prints the table of docs/causes.md.

    python -m bench.causes

The messages of a platform are classified without the patterns that match only messages of this
platform: with the rules as they would be if nobody had seen a message of it. The last row has
messages that no rule was written from, and all rules.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from app.domain.causes.classifier import UNCLASSIFIED, Classifier
from app.domain.causes.fingerprint import normalize_texts
from app.domain.causes.loader import load_builtin
from app.domain.causes.patterns import Pattern

SAMPLES = Path(__file__).parents[1] / "tests" / "samples"
LEAST_MESSAGES = 40
OTHERS, TOTAL, UNSEEN = "others", "all", "not used for the rules"
HEADER = "| platform | messages | right | missed | wrong |\n| --- | --- | --- | --- | --- |"


@dataclass(frozen=True)
class Sample:
    """A message that a platform gives, and all causes that are right."""

    message: str
    platform: str
    causes: frozenset[str]


def read_samples() -> list[Sample]:
    """The messages that the rules were written from, with their platforms; `others` if unknown."""
    samples = read_sample_file("phrasings.json") + read_sample_file("gathered.json")
    names = {sample.platform.lower().replace(" ", "_"): sample.platform for sample in samples}
    for file in sorted((SAMPLES / "messages").glob("*.json")):
        samples += [
            Sample(row["message"], names[file.stem], frozenset([row["cause"]]))
            for row in json.loads(file.read_text())
        ]
    unique = {sample.message: sample for sample in reversed(samples)}
    counts = Counter(sample.platform for sample in unique.values())
    return [
        sample if counts[sample.platform] >= LEAST_MESSAGES else replace(sample, platform=OTHERS)
        for sample in unique.values()
    ]


def read_sample_file(name: str) -> list[Sample]:
    """The messages of one file of tests/samples."""
    rows = json.loads((SAMPLES / name).read_text())
    return [
        Sample(row["message"], row["platform"] or OTHERS, frozenset(row["causes"])) for row in rows
    ]


def cross_validate(samples: list[Sample]) -> dict[str, Counter[str]]:
    """Count right, missed, and wrong by platform, each without the platform's own patterns."""
    platforms: dict[Pattern, set[str]] = defaultdict(set)
    classifier = load_builtin()
    texts = [(normalize_texts(sample.message), sample.platform) for sample in samples]
    for pattern in (pattern for rule in classifier.rules for pattern in rule.messages):
        for variants, platform in texts:
            if platform not in platforms[pattern] and any(map(pattern.matches, variants)):
                platforms[pattern].add(platform)
    return {
        platform: count_results(
            _without({pattern for pattern in platforms if platforms[pattern] == {platform}}),
            [sample for sample in samples if sample.platform == platform],
        )
        for platform in sorted({sample.platform for sample in samples} - {OTHERS}) + [OTHERS]
    }


def _without(patterns: set[Pattern]) -> Classifier:
    builtin = load_builtin()
    rules = [
        replace(rule, messages=tuple(text for text in rule.messages if text not in patterns))
        for rule in builtin.rules
    ]
    pairs = zip(builtin.rules, rules, strict=True)
    return Classifier(
        builtin.causes, [rule for old, rule in pairs if rule.messages or not old.messages]
    )


def count_results(classifier: Classifier, samples: Iterable[Sample]) -> Counter[str]:
    """Count how many samples are right, missed, and wrong."""
    results: Counter[str] = Counter()
    for sample in samples:
        cause = classifier.explain(sample.message).cause
        right = cause in sample.causes
        results["right" if right else "missed" if cause == UNCLASSIFIED else "wrong"] += 1
    return results


def report() -> str:
    """The table of docs/causes.md."""
    results = cross_validate(read_samples())
    results[TOTAL] = sum(results.values(), Counter())
    results[UNSEEN] = count_results(load_builtin(), read_sample_file("unseen.json"))
    lines = [HEADER]
    for platform, counts in results.items():
        total = counts.total()
        shares = (f"{counts[name] / total:.0%}" for name in ("right", "missed", "wrong"))
        lines.append(f"| {platform} | {total} | {' | '.join(shares)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(report())
