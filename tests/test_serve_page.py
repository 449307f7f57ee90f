"""The page of `mgs serve`, in a real browser against the real server."""

import contextlib
import csv
import io
import json
import shutil
import socket
import threading
import time

import pytest
from conftest import make_scorer
from PIL import Image, ImageDraw, PngImagePlugin

from mgs import Scorer
from mgs.backbones.table import load_backbone
from mgs.config import Config
from mgs.scoring.reward import mix_for

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
DIMENSIONS = ["quality", "authenticity", "correspondence"]
PROMPT = "A red (house:1.3) near a blue moon, with golden light"
READ = "A red house near a blue moon, with golden light"
WIDTHS = {"desktop": (1280, 900), "phone": (360, 740)}
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")


@pytest.fixture(scope="module")
def scorer():
    return Scorer.zero_shot("demo")


@contextlib.contextmanager
def running(scorers, **options):
    """A server of these scorers: its service, and its address."""
    uvicorn = pytest.importorskip("uvicorn", reason="mgs[web] is not installed")
    from mgs.serve.app import make_app
    from mgs.serve.limits import Limits
    from mgs.serve.service import Service

    service = Service(scorers, Limits())
    app = make_app(service, mix_for(next(iter(scorers.values()))), **options)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield service, f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def served(scorer):
    with running({"runs/first": scorer}) as found:
        yield found


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


class Visit:
    """A tab with the page, what its console says, and what it asks for."""

    def __init__(self, browser, url, size=WIDTHS["desktop"], **options):
        self.url, self.said, self.asked = url, [], []
        self.tab = browser.new_page(viewport=dict(zip(("width", "height"), size, strict=True)), **options)
        self.tab.set_default_timeout(20_000)
        self.tab.on("console", lambda message: self.said.append(message.text))
        self.tab.on("pageerror", lambda error: self.said.append(str(error)))
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.goto(url)

    def add(self, *files):
        """Choose files, (name, content) each, and wait until all of them are scored."""
        self.tab.set_input_files("#files", [{"name": n, "mimeType": "", "buffer": content} for n, content in files])
        return self.wait()

    def wait(self):
        """Wait until nothing is being scored; the cards' names in their order."""
        self.tab.locator("#cancel").wait_for(state="hidden")
        return self.names()

    def names(self):
        return self.tab.locator(".card h3").all_inner_texts()

    def card(self, name):
        return self.tab.locator(".card", has=self.tab.get_by_role("heading", name=name, exact=True))

    def scores(self, name):
        """What a card shows: each dimension's number and word."""
        return {
            row.locator(".dimension").inner_text(): (
                row.locator(".number").inner_text(),
                row.locator(".level").inner_text(),
            )
            for row in self.card(name).locator(".score").all()
        }

    def open_why(self, name):
        self.tab.get_by_role("button", name=f"Why these scores: {name}").press("Enter")
        self.tab.locator("#why-body").wait_for()

    def answer(self, content, **fields):
        """The server's entry for a file, asked for by the same tab without the page."""
        files = {"images": {"name": "x", "mimeType": "image/png", "buffer": content}}
        return self.tab.request.post(f"{self.url}/score", multipart=files | fields).json()["results"][0]

    def check_quiet(self):
        """Nothing was said in the console, and nobody but the server was asked."""
        assert self.said == []
        assert [url for url in self.asked if not url.startswith((f"{self.url}/", "blob:", "data:"))] == []


@pytest.fixture
def visit(served, browser):
    visit = Visit(browser, served[1])
    yield visit
    visit.check_quiet()
    visit.tab.close()


def picture(colour="teal", size=(512, 512), **texts):
    """A PNG file with a disc in it, and these texts."""
    image = Image.new("RGB", size, "white")
    ImageDraw.Draw(image).ellipse([size[0] // 4, size[1] // 4, size[0] * 3 // 4, size[1] * 3 // 4], fill=colour)
    info, stream = PngImagePlugin.PngInfo(), io.BytesIO()
    for name, text in texts.items():
        info.add_text(name, text)
    image.save(stream, "PNG", pnginfo=info)
    return stream.getvalue()


def prompted(colour="red"):
    """A PNG file as AUTOMATIC1111 writes it."""
    return picture(colour, parameters=f"{PROMPT}\nNegative prompt: blur\nSteps: 20, Sampler: Euler a, Seed: 1")


def shown(entry):
    """What a card shows of the server's entry."""
    return {name: (f"{value:.2f}", entry["levels"][name]) for name, value in entry["scores"].items()}


def test_an_example_is_scored_and_nobody_but_the_server_is_asked(visit):
    visit.tab.get_by_role("button", name="Example: ").first.click()
    (name,) = visit.wait()
    example = visit.tab.request.get(f"{visit.url}/examples").json()["examples"][0]
    assert name == example["name"]
    content = visit.tab.request.get(visit.url + example["url"]).body()
    assert visit.scores(name) == shown(visit.answer(content, prompts=example["prompt"]))
    assert len(visit.scores(name)) == 3
    assert "higher is better" in visit.tab.get_by_role("banner").inner_text()
    assert "runs/first" in visit.tab.get_by_role("banner").inner_text()


@pytest.mark.slow
def test_scores_are_the_servers_and_prompts_those_inside_the_files(visit):
    assert visit.add(("a.png", prompted()), ("b.png", picture())) == ["a.png", "b.png"]
    assert visit.tab.locator("#progress-text").inner_text() == "2 of 2 scored"
    card = visit.card("a.png")
    assert card.locator("textarea").input_value() == PROMPT
    assert "from the file (AUTOMATIC1111)" in card.locator(".prompt").inner_text()
    assert f"prompt read: {READ}" in card.locator(".notes").inner_text()
    assert visit.scores("a.png") == shown(visit.answer(prompted()))
    meter = card.get_by_role("meter", name="quality")
    assert meter.get_attribute("aria-valuetext") == "{} of 5, {}".format(*visit.scores("a.png")["quality"])
    assert visit.scores("b.png")["correspondence"] == ("", "needs a prompt")
    assert "none in the file" in visit.card("b.png").locator(".prompt").inner_text()


@pytest.mark.slow
def test_an_edited_prompt_is_scored_again_and_one_prompt_serves_all(visit):
    visit.add(("a.png", prompted()), ("b.png", picture()))
    field = visit.card("b.png").locator("textarea")
    field.fill("a teal disc")
    field.press("Enter")
    visit.wait()
    assert visit.scores("b.png") == shown(visit.answer(picture(), prompts="a teal disc"))
    field.fill("")
    field.blur()
    visit.wait()
    assert visit.scores("b.png")["correspondence"] == ("", "needs a prompt")
    everyone = visit.tab.get_by_label("One prompt for all")
    everyone.fill("a red disc")
    everyone.press("Enter")
    visit.wait()
    assert visit.scores("a.png") == shown(visit.answer(prompted(), prompts="a red disc"))
    assert visit.scores("b.png") == shown(visit.answer(picture(), prompts="a red disc"))
    everyone.fill("")
    everyone.press("Enter")
    visit.wait()
    assert visit.card("a.png").locator("textarea").input_value() == PROMPT
    assert visit.scores("a.png") == shown(visit.answer(prompted()))


@pytest.mark.slow
def test_a_prompt_that_is_being_written_is_not_replaced(visit):
    held = []
    visit.tab.route("**/prompt", lambda route: held.append(route))
    with visit.tab.expect_request("**/prompt"):
        visit.tab.set_input_files("#files", [{"name": "a.png", "mimeType": "", "buffer": prompted()}])
    field = visit.card("a.png").locator("textarea")
    field.fill("a red")
    held[0].continue_()
    visit.wait()
    assert field.input_value() == "a red"
    field.press_sequentially(" disc\n")
    visit.wait()
    assert visit.scores("a.png") == shown(visit.answer(prompted(), prompts="a red disc"))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["paste", "drop"])
def test_images_come_by_clipboard_and_by_dragging(visit, way):
    script = """async ([way, bytes]) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], "image.png", {type: "image/png"}));
        const event = way === "paste"
            ? new ClipboardEvent("paste", {clipboardData: data, bubbles: true, cancelable: true})
            : new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true});
        document.getElementById("drop").dispatchEvent(event);
    }"""
    visit.tab.evaluate(script, [way, list(prompted())])
    assert visit.wait() == ["image.png"]
    assert visit.scores("image.png") == shown(visit.answer(prompted()))


@pytest.mark.slow
def test_the_dialog_tells_why_by_keyboard_and_gives_the_focus_back(visit):
    visit.add(("a.png", prompted()))
    visit.open_why("a.png")
    why = visit.answer(prompted(), explain="true")["explanation"]
    cells = visit.tab.locator("#joint td:not(:empty)").all_inner_texts()
    assert cells == [f"{value:.2f}" for row in why["joint"] for value in row]
    assert visit.tab.locator("#joint th[scope=row]").all_inner_texts() == why["quality_words"]

    labels = visit.tab.locator("#stage .patches li")
    lowest = sorted(range(9), key=lambda i: why["patch_quality"][i])[:3]
    for i, (text, value) in enumerate(zip(labels.all_text_contents(), why["patch_quality"], strict=True)):
        mark = ", one of the lowest" if i in lowest else ""
        assert text == f"row {i // 3 + 1}, column {i % 3 + 1}: {value:.2f}{mark}"
    visit.tab.get_by_role("button", name="Authenticity").press("Space")
    assert f"{why['patch_authenticity'][4]:.2f}" in labels.nth(4).text_content()

    fragments = visit.tab.locator("#fragments button")
    assert fragments.count() == len(why["fragments"]) > 1
    fragments.nth(0).focus()
    visit.tab.keyboard.press("Tab")
    visit.tab.keyboard.press("Enter")
    fragment = why["fragments"][1]
    assert fragments.nth(1).get_attribute("aria-pressed") == "true"
    assert f"weight {fragment['weight']:.2f}, score {fragment['score']:.2f}" in fragments.nth(1).inner_text()
    counted = [i for i, text in enumerate(labels.all_text_contents()) if "counted" in text]
    assert counted == fragment["counted"]
    visit.tab.wait_for_function("document.querySelector('#stage .heat').width === 64")
    assert "heated" in visit.tab.locator("#stage").get_attribute("class")
    assert f"correspondence {why['correspondence']:.2f} = " in visit.tab.locator("#sum").inner_text()

    visit.tab.keyboard.press("Escape")
    assert not visit.tab.locator("#why").is_visible()
    assert visit.tab.evaluate("document.activeElement.getAttribute('aria-label')") == "Why these scores: a.png"


@pytest.mark.slow
def test_the_best_come_first_and_the_table_holds_what_the_page_shows(visit):
    files = {f"{colour}.png": picture(colour) for colour in ("red", "teal", "yellow")}
    visit.add(*files.items(), ("=1+1.png", prompted("navy")), ("bad, really.png", b"no image"))
    values = {name: visit.answer(content)["scores"]["quality"] for name, content in files.items()}
    values["=1+1.png"] = visit.answer(prompted("navy"))["scores"]["quality"]
    best = sorted(values, key=values.__getitem__, reverse=True)
    assert visit.names() == [*files, "=1+1.png", "bad, really.png"]
    visit.tab.get_by_label("Sort").select_option("by quality")
    assert visit.names() == [*best, "bad, really.png"]
    assert [visit.card(name).locator(".rank").text_content() for name in best] == [
        f"rank {i} by quality" for i in (1, 2, 3, 4)
    ]
    assert not visit.card("bad, really.png").locator(".rank").is_visible()

    with visit.tab.expect_download() as download:
        visit.tab.get_by_role("button", name="Export CSV").click()
    assert download.value.suggested_filename == "scores.csv"
    with open(download.value.path(), encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["image", "prompt", "prompt_read", *DIMENSIONS, "overall", "status", "checkpoint"]
    assert [row["image"] for row in rows] == [name.replace("=", "'=") for name in best] + ["bad, really.png"]
    assert [float(row["quality"]) for row in rows[:4]] == pytest.approx([values[name] for name in best])
    (row,) = (row for row in rows if row["image"] == "'=1+1.png")
    assert (row["prompt"], row["prompt_read"], row["checkpoint"]) == (PROMPT, READ, "runs/first")
    assert rows[-1]["quality"] == ""
    assert rows[-1]["status"].startswith("error: ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "cell"), [("-0.5", "'-0.5"), ("+a", "'+a"), ("@a", "'@a"), ("a\tb", "a␉b"), ('"a"\nb', '"""a""\nb"')]
)
def test_a_table_computes_nothing_when_it_is_opened(visit, text, cell):
    visit.add(("a.png", picture()))
    visit.tab.locator("textarea").fill(text)
    visit.tab.locator("textarea").blur()
    visit.wait()
    with visit.tab.expect_download() as download:
        visit.tab.get_by_role("button", name="Export CSV").click()
    with open(download.value.path(), encoding="utf-8-sig", newline="") as file:
        assert file.read().partition("\n")[2].startswith(f"a.png,{cell},")


@pytest.mark.slow
def test_names_and_errors_are_text_and_cards_can_be_removed(visit):
    name = "<img src=x onerror=alert(1)>.png"
    visit.add((name, b"no image"), ("b.png", picture()))
    assert visit.tab.locator("#progress-text").inner_text() == "1 of 2 scored, 1 failed"
    card = visit.card(name)
    assert card.locator("h3").inner_text() == name
    assert card.get_by_text("no preview").is_visible()
    assert len(card.locator(".state").inner_text()) > 10
    visit.tab.get_by_role("button", name=f"Remove: {name}").press("Enter")
    assert visit.names() == ["b.png"]
    assert visit.tab.evaluate("document.activeElement.getAttribute('aria-label')") == "Remove: b.png"
    visit.tab.get_by_role("button", name="Clear all").press("Enter")
    assert visit.names() == []
    assert visit.tab.evaluate("document.activeElement.id") == "choose"


@pytest.mark.slow
def test_object_urls_are_given_back(visit):
    visit.tab.locator("#examples img").nth(5).wait_for()  # they keep theirs
    visit.tab.evaluate("""() => {
        window.held = new Set();
        const [make, free] = [URL.createObjectURL, URL.revokeObjectURL];
        URL.createObjectURL = (blob) => { const url = make.call(URL, blob); held.add(url); return url; };
        URL.revokeObjectURL = (url) => { held.delete(url); free.call(URL, url); };
    }""")
    visit.add(("a.png", picture()), ("b.png", picture("red")))
    assert visit.tab.evaluate("held.size") == 2
    visit.tab.get_by_role("button", name="Remove: a.png").click()
    assert visit.tab.evaluate("held.size") == 1
    visit.tab.get_by_role("button", name="Clear all").click()
    assert visit.tab.evaluate("held.size") == 0


@pytest.mark.slow
def test_the_dialog_tells_of_scored_dimensions_alone_and_of_this_image(browser):
    scorers = {d: make_scorer(load_backbone("demo"), Config(), [d]) for d in ("correspondence", "overall")}
    with running(scorers) as (_, url):
        visit = Visit(browser, url)
        visit.add(("a.png", prompted()), ("b.png", prompted("blue")))
        visit.open_why("a.png")
        assert not visit.tab.locator("#why-joint").is_visible()
        assert visit.tab.locator(".switch button:visible").all_inner_texts() == ["Whole prompt"]
        visit.tab.locator("#fragments button").first.click()
        assert visit.tab.locator("#stage .patches li").count() == 9
        visit.tab.keyboard.press("Escape")
        visit.open_why("b.png")
        assert visit.tab.locator("#why [aria-pressed=true]").all_inner_texts() == ["Whole prompt"]
        assert visit.tab.locator("#stage .patches li").count() == 0
        visit.tab.keyboard.press("Escape")

        visit.tab.get_by_label("Scored by").select_option("overall")
        visit.wait()
        visit.open_why("a.png")
        why = visit.answer(prompted(), checkpoint="overall", explain="true")["explanation"]
        terms = " + ".join(f"0.33 × {part} {why[part]:.2f}" for part in DIMENSIONS)
        assert visit.tab.locator("#sum").inner_text().endswith(f" = {terms}")
        assert visit.tab.locator(".switch button:visible").count() == 3
        visit.check_quiet()
        visit.tab.close()


@pytest.mark.slow
def test_another_checkpoint_scores_all_again(browser, scorer):
    separate = Scorer.zero_shot("demo", options={"templates": "separate"})
    with running({"runs/first": scorer, "runs/second": separate}) as (_, url):
        visit = Visit(browser, url)
        visit.add(("a.png", prompted()), ("b.png", picture()))
        first = visit.scores("a.png")
        visit.tab.get_by_label("Scored by").select_option("runs/second")
        visit.wait()
        assert visit.scores("a.png") == shown(visit.answer(prompted(), checkpoint="runs/second")) != first
        visit.open_why("a.png")
        assert not visit.tab.locator("#joint").is_visible()  # such a checkpoint has no joint grid
        visit.check_quiet()
        visit.tab.close()


@pytest.mark.slow
def test_a_token_is_asked_for_once_and_kept(browser, scorer):
    with running({"runs/first": scorer}, token="open sesame") as (_, url):
        visit = Visit(browser, url)
        field = visit.tab.get_by_label("Token", exact=True)
        field.fill("wrong")
        field.press("Enter")
        visit.tab.get_by_text("did not accept that token").wait_for()
        field.fill("open sesame")
        field.press("Enter")
        visit.tab.locator("#examples img").nth(5).wait_for()
        visit.add(("a.png", prompted()))
        assert len(visit.scores("a.png")) == 3
        visit.tab.reload()
        visit.tab.locator("#examples img").nth(5).wait_for()
        assert not visit.tab.locator("#token").is_visible()
        assert [text for text in visit.said if "401" not in text] == []  # which the browser says of any refusal
        visit.tab.close()


@pytest.mark.slow
def test_a_busy_server_is_waited_for(browser, served):
    service, url = served
    visit = Visit(browser, url)
    visit.tab.locator("#examples img").nth(5).wait_for()
    service.inside += service.limits.queue
    visit.tab.set_input_files("#files", [{"name": "a.png", "mimeType": "", "buffer": prompted()}])
    visit.tab.get_by_text("Waiting 1 s: ").wait_for()
    service.inside -= service.limits.queue
    visit.wait()
    assert visit.scores("a.png") == shown(visit.answer(prompted()))
    assert [text for text in visit.said if "503" not in text] == []
    visit.tab.close()


@pytest.mark.slow
def test_scoring_asks_for_four_at_once_and_can_be_cancelled_and_resumed(browser, served):
    visit = Visit(browser, served[1])
    held = []
    visit.tab.route("**/score", lambda route: held.append(route))
    files = [(f"{i}.png", picture()) for i in range(9)]
    visit.tab.set_input_files("#files", [{"name": n, "mimeType": "", "buffer": content} for n, content in files])
    deadline = time.monotonic() + 10
    while len(held) < 4 and time.monotonic() < deadline:
        visit.tab.wait_for_timeout(50)
    visit.tab.wait_for_timeout(200)
    assert len(held) == 4
    held[0].continue_()
    visit.tab.get_by_text("1 of 9 scored").first.wait_for()
    visit.tab.get_by_role("button", name="Cancel").press("Enter")
    visit.wait()
    assert visit.tab.get_by_text("Cancelled.").count() == 8
    visit.tab.unroute("**/score")
    assert visit.tab.evaluate("document.activeElement.textContent") == "Score the rest"
    visit.tab.keyboard.press("Enter")
    visit.wait()
    assert visit.tab.locator("#progress-text").inner_text() == "9 of 9 scored"
    visit.check_quiet()
    visit.tab.close()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_is_accessible_and_fits(browser, served, scheme, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed").Axe()
    visit = Visit(browser, served[1], WIDTHS[width], color_scheme=scheme, reduced_motion="reduce")

    def check(state):
        found = [(it["id"], [node["html"] for node in it["nodes"]]) for it in axe.run(visit.tab).response["violations"]]
        assert found == [], f"{state}: {json.dumps(found, indent=1)}"
        for box in ("document.documentElement", "document.querySelector('.why-body')"):
            assert visit.tab.evaluate(f"{box}.scrollWidth - {box}.clientWidth") == 0, f"{state}: scrolls sideways"

    visit.tab.locator("#examples img").nth(5).wait_for()
    check("empty")
    long_name = "a_very_long_name_without_a_space_" * 5 + ".png"
    visit.add(("a.png", prompted()), (long_name, picture(size=(300, 900))), ("bad.png", b"no image"))
    visit.tab.get_by_label("Sort").select_option("by quality")
    visit.tab.get_by_text("What the scores mean").click()
    check("three images")
    visit.open_why("a.png")
    check("why")
    visit.tab.locator("#fragments button").first.click()
    check("a fragment")
    visit.tab.get_by_role("button", name="Close").click()
    visit.tab.evaluate("document.getElementById('token').showModal()")
    check("token")
    visit.check_quiet()
    visit.tab.close()
