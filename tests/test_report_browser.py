"""The report in a real browser without a network: its numbers against those of the parts, its sound, its peace."""

import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import jiwer
import pytest
import sacrebleu
import soundfile
from playwright.sync_api import Browser, Page
from whisper_normalizer.english import EnglishTextNormalizer

from browser import browser
from finished_run import CLIPS, CLUSTERS, HOSTILE, out
from spire_ray.cli import main

__all__ = ["browser", "out"]  # fixtures
pytestmark = pytest.mark.timeout(900)  # where Chromium is to be installed first: 90 s in a container
SAMPLES = 20


@pytest.fixture(scope="module")
def file(out: Path) -> Path:
    made = out.parent / "report.html"
    assert main(["report", str(out), "--html", str(made)]) == 0
    return made


@pytest.fixture(scope="module")
def page(browser: Browser, file: Path) -> Iterator[Page]:
    """The page, opened as a file, and `page.told`: what it asked for, what of that got past its policy, its console."""
    yield from opened(browser, file)


def opened(browser: Browser, file: Path, **how: Any) -> Iterator[Page]:
    context = browser.new_context(offline=True, **how)
    asked: list[str] = []
    passed: list[str] = []
    said: list[str] = []

    def route(request: Any) -> None:
        passed.append(request.request.url)
        request.continue_() if request.request.url == file.as_uri() else request.abort()

    context.route("**/*", route)
    shown = context.new_page()
    shown.on("console", lambda message: said.append(message.text))
    shown.on("pageerror", lambda error: said.append(str(error)))
    shown.on("dialog", lambda dialog: said.append(dialog.message))
    shown.on("request", lambda request: asked.append(request.url))
    shown.goto(file.as_uri())
    vars(shown)["told"] = (asked, passed, said)
    yield shown
    context.close()


def query(out: Path, selected: str) -> list[Any]:
    """Rows of a query in which {units} and the like are the tables."""
    tables = {
        name: f"read_parquet('{out}/{name}/*.parquet')" for name in ("plan", "units", "transcripts", "translations")
    }
    return duckdb.sql(selected.format(**tables)).fetchall()


def rows_under(page: Page, title: str) -> list[list[str]]:
    """The cells of the table under a heading."""
    heading = page.locator("h2, h3").filter(has_text=re.compile(f"^{re.escape(title)}$"))
    lines = heading.locator("xpath=following-sibling::*//tbody/tr | following-sibling::*[self::table]//tbody/tr")
    return [[cell.strip() for cell in line.locator("th, td").all_inner_texts()] for line in lines.all()]


def test_nothing_leaves_the_page_and_its_console_is_silent(page: Page, file: Path) -> None:
    page.wait_for_function("[...document.querySelectorAll('audio')].every(one => one.readyState >= 1)")
    asked, passed, said = vars(page)["told"]
    assert said == []
    assert passed == [file.as_uri()]
    assert {url.partition(",")[0] for url in asked} <= {file.as_uri(), "data:audio/flac;base64"}
    assert (
        page.evaluate("performance.getEntriesByType('resource').filter(one => !one.name.startsWith('data:')).length")
        == 0
    )
    assert file.stat().st_size < 10_000_000


def test_what_is_hostile_is_shown_and_does_nothing(page: Page) -> None:
    assert page.title() == "out: report"
    for kind in ("script", "img", "iframe", "object", "link", "form", "a", "base", "svg[onload]", "[style]"):
        assert page.locator(kind).count() == 0
    shown = page.locator("body").inner_text()
    assert sum(text in shown for text in HOSTILE) >= 3
    policy = page.locator("meta[http-equiv=Content-Security-Policy]").get_attribute("content")
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")


def test_the_policy_alone_stops_a_script(browser: Browser, file: Path, tmp_path: Path) -> None:
    """As if the escaping were broken."""
    broken = tmp_path / "broken.html"
    attack = (
        "<script>document.title = 'owned'</script><img src=http://127.0.0.1:9/x onerror=\"document.title='owned'\">"
    )
    broken.write_text(file.read_text().replace("<main>", f"<main>{attack}", 1))
    for shown in opened(browser, broken):
        assert shown.title() == "out: report"
        _, passed, said = vars(shown)["told"]
        assert passed == [broken.as_uri()]
        assert len(said) >= 2


def test_the_funnel(page: Page, out: Path) -> None:
    fine = "SELECT utterance_id, flags FROM {transcripts} WHERE error IS NULL"
    steps = {
        "planned": "SELECT utterance_id FROM {plan}",
        "audio read": "SELECT utterance_id FROM {units} WHERE error IS NULL OR error LIKE 'silent%'",
        "with units": "SELECT utterance_id FROM {units} WHERE error IS NULL",
        "with all its text": f"SELECT utterance_id FROM ({fine}) EXCEPT "
        "SELECT utterance_id FROM {translations} WHERE error IS NOT NULL",
        "no text flagged": f"SELECT utterance_id FROM ({fine}) WHERE len(flags) = 0 EXCEPT "
        "SELECT utterance_id FROM {translations} WHERE error IS NOT NULL OR len(flags) > 0",
    }
    shown = {row[0]: row[1:4] for row in rows_under(page, "From plan to clean text")}
    whole = query(out, "SELECT count(*) FROM {plan}")[0][0]
    assert list(shown) == list(steps)
    for step, selected in steps.items():
        ((count, seconds),) = query(
            out,
            f"SELECT count(*), sum(coalesce(u.duration_s, p.duration_s)) FROM ({selected}) s "
            "JOIN {plan} p USING (utterance_id) JOIN {units} u USING (utterance_id)",
        )
        assert shown[step] == [f"{count}", f"{100 * count / whole:.1f} %", f"{seconds / 3600:.4f}"]


def test_errors_and_flags(page: Page, out: Path) -> None:
    texts = {"transcript": "SELECT * FROM {transcripts}"}
    texts |= {to: f"SELECT * FROM {{translations}} WHERE target_language = '{to}'" for to in ("de", "zh")}
    errors = {"audio": "SELECT error FROM {units}"} | texts
    expected = Counter(
        (name, error.partition(":")[0], str(count))
        for name, selected in errors.items()
        for error, count in query(
            out, f"SELECT split_part(error, ':', 1), count(*) FROM ({selected}) WHERE error IS NOT NULL GROUP BY 1"
        )
    )
    assert Counter(map(tuple, rows_under(page, "Errors by reason"))) == expected
    flags = {
        (name, flag): count
        for name, selected in texts.items()
        for flag, count in query(out, f"SELECT unnest(flags), count(*) FROM ({selected}) GROUP BY 1")
    }
    assert {(row[0], row[1]): int(row[2]) for row in rows_under(page, "Flags on text")} == flags
    assert flags


def test_units(page: Page, out: Path) -> None:
    frames = dict(
        query(
            out,
            "SELECT unit, sum(run) FROM (SELECT unnest(units) unit, unnest(run_lengths) run FROM {units}) GROUP BY 1",
        )
    )
    total = sum(frames.values())
    shown = rows_under(page, "Most used")
    most = sorted(frames.values(), reverse=True)[:10]
    assert [int(row[1]) for row in shown] == most
    assert all(frames[int(row[0])] == int(row[1]) for row in shown)
    entropy = -sum(count / total * math.log(count / total) for count in frames.values())
    told = page.locator(".card").filter(has_text="Usage").inner_text()
    assert f"{math.exp(entropy):.1f} of {CLUSTERS}" in told
    assert re.search(rf"dead units\s+{CLUSTERS - len(frames)} ", told)
    assert f"{total:,}" in told


def bars(page: Page, title: str) -> dict[str, int]:
    """What the bars of a histogram say when they are pointed at."""
    card = page.locator(".card").filter(has=page.locator("h3", has_text=re.compile(f"^{title}$")))
    told = card.locator("svg g > title").evaluate_all("all => all.map(one => one.textContent)")
    return {line.rpartition(": ")[0]: int(line.rpartition(": ")[2].replace(",", "")) for line in told}


def test_histograms(page: Page, out: Path) -> None:
    seconds = dict(query(out, "SELECT utterance_id, duration_s FROM {units} WHERE error IS NULL"))
    units = dict(query(out, "SELECT utterance_id, len(units) FROM {units} WHERE error IS NULL"))
    heard = query(out, "SELECT utterance_id, text, avg_logprob FROM {transcripts} WHERE error IS NULL")
    shown = {
        "Duration": (seconds.values(), 30, 1.0, "s"),
        "Speaking rate, characters": ([len(text) / seconds[name] for name, text, _ in heard], 40, 1.0, "characters/s"),
        "Speaking rate, units": ([units[name] / seconds[name] for name in units], 50, 1.0, "units/s"),
        "Confidence of transcripts": ([one for _, _, one in heard], 0, 0.1, "mean log probability of a token"),
    }
    for title, (values, _, step, unit) in shown.items():
        found = bars(page, title)
        assert sum(found.values()) == len(values)
        for name, count in found.items():
            low, high = (float(end) for end in re.match(r"(\S+) to (\S+) ", name).groups())  # type: ignore[union-attr]
            assert high - low == pytest.approx(step)
            assert unit in name
            if "more" not in name:
                assert count == sum(low - 1e-6 <= value < high - 1e-6 for value in values)


def test_scores(page: Page, out: Path) -> None:
    said = query(
        out,
        "SELECT p.reference, coalesce(t.text, '') FROM {plan} p JOIN {transcripts} t USING (utterance_id) "
        "WHERE p.reference IS NOT NULL",
    )
    plain = EnglishTextNormalizer()  # another package's own class, with Whisper's rules
    pairs = [(plain(reference), plain(text)) for reference, text in said]
    shown = {row[0]: row for row in rows_under(page, "Against the references")}
    rate = jiwer.wer(*(list(side) for side in zip(*((one, other) for one, other in pairs if one), strict=True)))
    assert shown["transcript"][2] == f"{100 * rate:.1f} %"
    for language, tokenizer in (("de", "13a"), ("zh", "zh")):
        told = query(
            out,
            "SELECT p.\"references\", coalesce(t.text, '') FROM {plan} p JOIN {translations} t USING (utterance_id) "
            f"WHERE t.target_language = '{language}'",
        )
        kept = [(one["text"], text) for some, text in told for one in some or () if one["language"] == language]
        expected = sacrebleu.corpus_bleu([b for _, b in kept], [[a for a, _ in kept]], tokenize=tokenizer).score
        assert shown[language][2:4] == [f"{expected:.1f}", f"{len(kept)}"]


def test_samples_can_be_heard_and_seen(page: Page, out: Path) -> None:
    assert page.locator("article").count() == SAMPLES
    made = query(out, "SELECT utterance_id, units, run_lengths FROM {units}")
    units = {name: (some, runs) for name, some, runs in made}
    players = 0
    for article in page.locator("article").all():
        name = article.locator("h3").evaluate("one => one.firstChild.textContent")
        if not article.locator("audio").count():
            assert article.locator(".fault").count()
            continue
        players += 1
        clip = soundfile.info(CLIPS / f"{name.partition('<')[0]}.flac")
        seconds = article.locator("audio").evaluate(
            "async one => { if (!one.readyState) await new Promise(done => one.onloadedmetadata = done); "
            "return one.duration }"
        )
        assert seconds == pytest.approx(min(clip.duration, 10.0), abs=0.01)
        told = article.locator("svg g > title").evaluate_all("all => all.map(one => one.textContent)")
        at, expected = 0, []
        for unit, run in zip(*units[name], strict=True):
            expected.append((f"unit {unit}", at * 0.02, (at + run) * 0.02))
            at += run
        for line, (unit, start, end) in zip(told, expected, strict=True):
            assert line == f"{unit}, {start:.2f} to {min(end, seconds):.2f} s"
    assert players >= 12
    # A player plays: the sound is decoded, not only its header read.
    heard = page.locator("audio").first.evaluate(
        """async one => {
            const bytes = Uint8Array.from(atob(one.src.split(',')[1]), c => c.charCodeAt(0));
            const sound = await new OfflineAudioContext(1, 16000, 16000).decodeAudioData(bytes.buffer);
            return [sound.duration, Math.max(...sound.getChannelData(0))];
        }"""
    )
    assert heard[0] > 0.5
    assert heard[1] > 0.05


def test_speed_and_provenance(page: Page) -> None:
    rows = {row[0]: row[1:] for row in rows_under(page, "Speed")}
    assert rows["units"] == ["2 CPUs, Some <CPU>", "2", "0.030", "4.0", "27.0"]
    assert rows["text"][-1] == "6.8"
    told = page.locator("section").filter(has_text="Provenance")
    told.locator("summary").first.click()
    assert "/data/<corpus>" in told.inner_text()
    assert "3.11, 3.12" in (told.text_content() or "")


def test_it_is_read_on_any_screen_by_day_and_night(browser: Browser, file: Path) -> None:
    grounds = set()
    for scheme, width in (("light", 1280), ("dark", 1280), ("light", 360)):
        how: Any = {"color_scheme": scheme, "viewport": {"width": width, "height": 800}}
        for shown in opened(browser, file, **how):
            assert shown.evaluate("document.documentElement.scrollWidth <= innerWidth")
            grounds.add((scheme, shown.evaluate("getComputedStyle(document.body).backgroundColor")))
            unnamed = (
                "[...document.querySelectorAll('audio, svg')].filter(e => !e.ariaLabel && e.ariaHidden !== 'true')"
            )
            assert shown.evaluate(f"{unnamed}.length") == 0
    assert len(grounds) == 2
    assert len({colour for _, colour in grounds}) == 2
