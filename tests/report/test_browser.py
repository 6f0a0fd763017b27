"""The report in headless Chromium: what is clicked, filtered, pressed, and never run."""

import json
import time

import pytest
from benchmarks import report_speed

from stepcoder_jax.__main__ import main

pytest.importorskip("selenium", reason="selenium (the extra test) is not installed")
if report_speed.find_browser() is None:
    pytest.skip("no chromium and chromedriver on the path", allow_module_level=True)

from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

HOSTILE = (
    "<img src=x onerror='window.hit=1'></pre></script><script>window.hit=1</script>"
    "\x1b[2J\u202e\u200b\ufeff\x00&lt;é\U0001f600"
)


def write(folder, *names, rollouts=(), seeds=(0,)):
    """A report of made-up runs; `rollouts` are changes to the first run's first rows."""
    runs = [
        report_speed.make_run(folder / name, 4, 30, seed)
        for name, seed in zip(names, seeds)
    ]
    file = runs[0] / "rollouts" / "0.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row, change in zip(rows, rollouts):
        row |= change
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["report", *map(str, runs), "--out", str(folder / "report.html")]) == 0
    return folder / "report.html"


@pytest.fixture(scope="module")
def chromium():
    browser = report_speed.open_browser()
    yield browser
    browser.quit()


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    folder = tmp_path_factory.mktemp("usual")
    return write(folder, "s0", "s1", "s2", seeds=(0, 1, 2))


def ticks_of(browser, title):
    """Numbers at the vertical axis of a chart."""
    texts = browser.execute_script(
        "const of = (x) => x.querySelector('figcaption').firstChild.textContent;"
        "const chart = [...document.querySelectorAll('.chart')]"
        ".find((x) => of(x) === arguments[0]);"
        "return [...chart.querySelectorAll('text[text-anchor=end]')]"
        ".map((x) => x.textContent);",
        title,
    )
    return [float(text) for text in texts]


def test_an_interval_of_two_runs_leaves_their_lines_readable(chromium, tmp_path):
    """t of one degree of freedom is 12.7: pass rates .1 and .6 have an interval to 3.5."""
    folders = [report_speed.make_run(tmp_path / name, 4, 4) for name in ("low", "high")]
    for folder, share in zip(folders, (0.1, 0.6)):
        rows = [{"step": step, "pass_rate": share, "reward": -share} for step in range(4)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "metrics.jsonl").write_text(text)
    out = tmp_path / "report.html"
    assert main(["report", *map(str, folders), "--out", str(out)]) == 0
    report_speed.load(chromium, out)
    rates, rewards = ticks_of(chromium, "Pass rate"), ticks_of(chromium, "Reward")
    assert min(rates) == 0 and 0.6 <= max(rates) <= 1
    assert -1 <= min(rewards) <= -0.5 and max(rewards) <= 0.3


@pytest.fixture
def page(chromium, usual):
    """The report of three seeds; nothing may have been said on the console at the end."""
    report_speed.load(chromium, usual)
    yield chromium
    assert chromium.get_log("browser") == []


def press(page, *keys):
    ActionChains(page).send_keys(*keys).perform()


def find(page, selector):
    return page.find_elements(By.CSS_SELECTOR, selector)


def one(page, selector):
    return page.find_element(By.CSS_SELECTOR, selector)


def until(page, condition):
    """Wait for what a click opens: chunks are unpacked without holding the page."""
    end = time.monotonic() + 10
    while not holds(condition):
        assert time.monotonic() < end, one(page, "body").text[:500]
        time.sleep(0.02)


def holds(condition):
    """Not yet, where the page makes anew what is looked at."""
    try:
        return condition()
    except StaleElementReferenceException:
        return False


def count(page):
    return int(one(page, "#count").text.split()[0].replace(",", ""))


def choose(page, name, value):
    page.execute_script(report_speed.FILTER, f"filter-{name}", value)


def column(page, place):
    """The texts of a column, read at once: the table makes its rows anew as it scrolls."""
    return page.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map((x) => x.innerText);",
        f"#rows tr.row td:nth-child({place})",
    )


def test_curves_are_drawn_with_intervals_over_runs(page):
    titles = [title.text for title in find(page, "#arm-charts figcaption")]
    assert titles[0].startswith("Validation pass@1") and titles[1].startswith("Pass rate")
    assert len(find(page, "#arm-charts .band")) == len(titles)  # three runs, one arm
    assert one(page, "#runs").text.count("s0 and 2 more") == 3
    parts = one(page, "#part-charts").text
    for title in ("Verdicts", "Masked by FGO", "Critic: bias", "Seconds"):
        assert title in parts
    assert len(find(page, "#part-charts .area")) == 5  # of two stacks
    assert one(page, "#heat canvas").get_attribute("aria-label").startswith("Curriculum")
    chart = find(page, "#arm-charts svg")[1]
    ActionChains(page).move_to_element(chart).perform()
    assert "s0 and 2 more: " in one(page, "#tip").text and "[" in one(page, "#tip").text


def test_a_value_far_below_is_drawn_at_the_edge(page):
    chart = {"title": "t", "note": "", "floor": -1, "least": None, "most": None}
    chart["lines"] = [{"x": [0, 1, 2], "y": [0.5, -17.0, 0.2]}]
    path, texts = page.execute_script(
        "const chart = drawChart(arguments[0], arguments[0].lines, ['a'], [0], true);"
        "return [chart.querySelector('path').getAttribute('d'),"
        " [...chart.querySelectorAll('text')].map((text) => text.textContent)];",
        chart,
    )
    lowest = max(float(point.split()[1]) for point in path[1:].split("L"))
    assert lowest < 210 and "-1" in texts and not any("-5" in text for text in texts)


def test_the_heat_map_opens_a_rollout(page):
    page.execute_script(
        "const c = document.querySelector('#heat canvas'), b = c.getBoundingClientRect();"
        "for (let y = 3; y < 400; y += 5) for (let x = 215; x < 320; x += 5) {"
        "  if (views.now === 'sample') break;"
        "  c.dispatchEvent(new MouseEvent('click', "
        "    { clientX: b.left + x * b.width / c.width, clientY: b.top + y }));"
        "}"
    )
    until(page, lambda: one(page, "#sample").is_displayed())
    assert one(page, "#sample pre.code").text.startswith("def solve")


def test_filters_by_verdict_stage_difficulty_step_problem_and_run(page):
    one(page, "#show-table").click()
    assert count(page) == 360
    choose(page, "verdict", "0")
    assert 0 < count(page) < 360 and set(column(page, 5)) == {"✓ pass"}
    choose(page, "verdict", "")
    choose(page, "stage", "2")
    assert 0 < count(page) < 360 and set(column(page, 4)) == {"2"}
    choose(page, "stage", "")
    choose(page, "difficulty", "interview")
    assert 0 < count(page) < 360 and set(column(page, 3)) == {"interview"}
    choose(page, "from", "1")
    choose(page, "to", "2")
    assert set(column(page, 1)) == {"1", "2"}
    one(page, "#filter-clear").click()
    assert count(page) == 360
    choose(page, "run", "1")
    assert count(page) == 120 and set(column(page, 10)) == {"s1"}
    one(page, "#filter-clear").click()
    one(page, "#filter-problem").send_keys("COMPETITION/")
    assert 0 < count(page) < 360
    assert all("competition/" in name for name in column(page, 2))
    choose(page, "problem", "nothing has this")
    assert count(page) == 0 and find(page, "#rows tr.row") == []


def test_columns_sort_up_and_down(page):
    one(page, "#show-table").click()
    head = one(page, '[data-column="reward"] button')
    head.click()
    assert column(page, 7)[0] == "−1.00"
    assert one(page, '[data-column="reward"]').get_attribute("aria-sort") == "ascending"
    head.click()
    assert column(page, 7)[0] == "+1.00"
    head.click()
    assert column(page, 1)[0] == "0"


def test_rows_out_of_sight_are_not_in_the_page(page):
    one(page, "#show-table").click()
    assert 20 < len(find(page, "#rows tr.row")) < 80
    page.execute_script("byId('table').scrollTop = 1e6")
    until(page, lambda: (column(page, 10) or [""])[-1] == "s2")


def test_a_rollout_opens_by_a_click_and_tells_of_its_tokens(page):
    one(page, "#show-table").click()
    find(page, "#rows tr.row")[3].click()
    until(page, lambda: one(page, "#sample").is_displayed())
    program = one(page, "#sample pre.code")
    assert program.text.startswith("def solve(x0, x1, x2):\n    x0 =")
    assert one(page, ".code .given").text.startswith("def solve")
    assert find(page, ".code .ran") and find(page, ".code .idle")
    (reward,) = find(page, ".token[data-reward]")
    assert reward.text == "end" and "out" in reward.get_attribute("class")
    ActionChains(page).move_to_element(find(page, ".token.ran")[2]).perform()
    told = one(page, "#tip").text
    for word in ("token ", "executed", "probability ", "advantage ", "value "):
        assert word in told
    tests = one(page, ".tests").text
    assert "solve(2)" in tests and "expected" in tests
    assert len(find(page, '.same [aria-current="true"]')) == 1


def test_the_same_problem_at_another_step(chromium, tmp_path):
    same = [{"problem": "made/interview/again"}] * 30
    report_speed.load(chromium, write(tmp_path, "a", rollouts=same))
    press(chromium, "2", Keys.ENTER)
    until(chromium, lambda: one(chromium, "#sample").is_displayed())
    buttons = find(chromium, ".same button")
    assert len(buttons) == 30
    buttons[7].click()
    until(chromium, lambda: "8 of " in one(chromium, ".top").text)


def test_the_keyboard_is_enough(page):
    press(page, "2")
    assert one(page, "#rollouts").is_displayed()
    press(page, "jjjk")
    chosen = one(page, '#rows [aria-selected="true"]')
    assert chosen.get_attribute("data-place") == "2"
    press(page, Keys.ENTER)
    until(page, lambda: "3 of 360" in one(page, "#sample").text)
    press(page, "j")
    until(page, lambda: "4 of 360" in one(page, "#sample").text)
    press(page, "k")
    until(page, lambda: "3 of 360" in one(page, "#sample").text)
    press(page, Keys.ARROW_RIGHT * 2)
    assert one(page, ".token-line").text.startswith("token 2 of ")
    press(page, "c")
    background = find(page, ".token")[0].value_of_css_property("background-color")
    assert background != "rgba(0, 0, 0, 0)"
    press(page, Keys.ESCAPE)
    assert one(page, "#rollouts").is_displayed()
    press(page, "/", "interview/")
    assert one(page, "#filter-problem").get_attribute("value") == "interview/"
    assert 0 < count(page) < 360
    press(page, Keys.ESCAPE, "j")  # leaves the field: j moves again
    chosen = one(page, '#rows [aria-selected="true"]')
    assert chosen.get_attribute("data-place") == "1"
    press(page, "?")
    assert one(page, "#help").is_displayed() and "filter" in one(page, "#help").text
    press(page, Keys.ESCAPE)
    assert not one(page, "#help").is_displayed()
    press(page, "1")
    assert one(page, "#curves").is_displayed()


def test_dark_mode_by_the_system_and_by_key(chromium, usual):
    scheme = [{"name": "prefers-color-scheme", "value": "dark"}]
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    report_speed.load(chromium, usual)
    body = one(chromium, "body")
    assert body.value_of_css_property("background-color") == "rgba(20, 23, 28, 1)"
    press(chromium, "d")
    assert body.value_of_css_property("background-color") == "rgba(255, 255, 255, 1)"
    one(chromium, "#toggle-theme").click()
    assert body.value_of_css_property("background-color") == "rgba(20, 23, 28, 1)"
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_hostile_text_is_shown_and_not_run(chromium, tmp_path):
    row = {
        **dict.fromkeys(("problem", "difficulty", "head", "message"), HOSTILE),
        "completion": HOSTILE + "\ud800",
        "spans": [[len(HOSTILE.encode()), 3 * len(HOSTILE.encode())], None],
        **{"executed": [1, 1], "logprobs": [-1, 0], "advantages": [1, 1]},
        **{"values": [0, 0], "rewards": [[1, 1.0]]},
        "shown": [{"test": 0, "verdict": "wrong", "Call": HOSTILE, "Got": HOSTILE}],
        "turns": [{"source": HOSTILE, "verdict": "wrong", "feedback": HOSTILE}],
    }
    name = "<img src=x onerror=window.hit=1>"
    report_speed.load(chromium, write(tmp_path, name, rollouts=[row]))
    press(chromium, "2", Keys.ENTER)
    until(chromium, lambda: one(chromium, "#sample").is_displayed())
    ActionChains(chromium).move_to_element(one(chromium, ".token")).perform()
    assert "onerror" in one(chromium, "#tip").text
    shown = "".join(
        chromium.execute_script(
            "return [...document.querySelectorAll('body > :not(script)')]"
            ".map((element) => element.textContent)"
        )
    )
    assert shown.count("</script><script>window.hit=1</script>") >= 6
    assert "␛[2J\ufffd\ufffd\ufffd␀&lt;é\U0001f600" in shown and name in shown
    assert not set("\x1b\u202e\u200b\ufeff\x00") & set(shown)
    assert find(chromium, "img") == []
    assert chromium.execute_script("return window.hit") is None
    assert chromium.get_log("browser") == []


def test_older_rows_and_turns(chromium, tmp_path):
    old = {"shown": [], "rewards": None, "logprobs": [], "values": []}
    turn = {"source": "x = 1\n", "verdict": "runtime", "feedback": "It stops."}
    spans = [None] * 4 + [[100, 104], None]
    numbers = ("executed", "logprobs", "advantages", "values")
    answer = {name: [0.5] * 6 for name in numbers} | {"spans": spans, "turns": [turn]}
    answer |= {"explanation": "It adds 2.\n", "explained": 3, "rewards": [[2, 0.5], [5, 1]]}
    file = write(tmp_path, "a", rollouts=[old, answer])
    report_speed.load(chromium, file)
    press(chromium, "2", Keys.ENTER)
    until(chromium, lambda: one(chromium, "#sample").is_displayed())
    press(chromium, Keys.ARROW_RIGHT)
    assert "probability" not in one(chromium, ".token-line").text
    assert len(find(chromium, ".token[data-reward]")) == 1
    press(chromium, "j")
    until(chromium, lambda: find(chromium, ".turn"))
    assert (
        "Turn 1" in one(chromium, ".turn").text
        and "It stops." in one(chromium, ".turn").text
    )
    assert "It adds 2." in one(chromium, "#sample").text
    labels = [token.text for token in find(chromium, ".key .token")]
    assert labels == ["·", "·", "·", "fence", "end"]
    badges = [token.get_attribute("data-reward") for token in find(chromium, ".key .token")]
    assert badges == [None, None, "+0.50", None, "+1.00"]
    press(chromium, Keys.ARROW_RIGHT)
    assert "of the explanation" in one(chromium, ".token-line").text
    assert chromium.get_log("browser") == []


def test_a_run_without_rollouts_is_still_drawn(chromium, tmp_path):
    folder = report_speed.make_run(tmp_path / "a", 3, 1)
    for file in (folder / "rollouts").iterdir():
        file.unlink()
    out = tmp_path / "report.html"
    assert main(["report", str(folder), "--out", str(out)]) == 0
    report_speed.load(chromium, out)
    assert "no rollouts" in one(chromium, "#notes").text
    assert find(chromium, "#arm-charts svg")
    press(chromium, "2", Keys.ENTER, "j")
    assert count(chromium) == 0 and chromium.get_log("browser") == []
