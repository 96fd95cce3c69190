"""DRAW AUDIO in a headless Chromium: the page from disk, in a frame, and in a real JupyterLab."""

import base64
import html
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from scipy.signal import get_window
from support import watched_page, write_notebook

from lib.common.provenance import ROOT
from lib.draw_audio import module, standalone_page
from lib.draw_audio.render import render_notes

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
STROKE = [(0.02, 0.0), (0.1, 0.8), (0.25, -0.3), (0.4, 0.9), (0.55, 0.1), (0.8, -0.9), (0.98, 0.2)]
HIGHEST = 112  # MIDI key E8, 5274 Hz: the last key of the highest octave


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "draw.html"
    subprocess.run([sys.executable, "-m", "lib.draw_audio", path], check=True, cwd=ROOT)
    return path.as_uri()


@pytest.fixture
def page(chromium, file):
    with watched_page(chromium, (file, "blob:", "data:"), viewport=DESKTOP) as page:
        page.goto(file)
        yield page


INSTRUMENT = "document.querySelector('.draw-audio').instrument"
SOUNDS = f"Math.max(...{INSTRUMENT}.player.samples()) > 0.05"  # a voice has a peak of about 0.2


def shown_wave(page):
    return np.array(page.evaluate(f"Array.from({INSTRUMENT}.wave)"))


def with_mouse(page, places):
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=8)
    page.mouse.up()


def with_finger(page, places):
    screen = page.context.new_cdp_session(page)
    for n, (x, y) in enumerate(places):
        kind = "touchMove" if n else "touchStart"
        screen.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    screen.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


def draw(page, canvas, points, stroke=with_mouse):
    """Draw through `points` (share of the width, value); return the wave of that path (NaN outside) and a tolerance.

    The tolerance is one pixel plus half a sample's change on the steepest line.
    """
    box = canvas.bounding_box()
    places = [
        (round(box["x"] + x * box["width"]), round(box["y"] + (1 - y / 1.2) / 2 * box["height"])) for x, y in points
    ]
    stroke(page, places)
    x, y = np.array(places, float).T
    phase = (x - box["x"]) / box["width"] * 2048
    value = (1 - 2 * (y - box["y"]) / box["height"]) * 1.2
    pixel = 2 * 1.2 / box["height"]
    steepest = np.abs(np.diff(value) / np.diff(phase)).max()
    return np.interp(np.arange(2048), phase, value, np.nan, np.nan), pixel + steepest / 2


def assert_drawn(wave, path, tolerance):
    inside = ~np.isnan(path)
    assert inside.sum() > 1900  # the path covers 96 % of 2048 samples
    assert np.abs(wave - path)[inside].max() < tolerance < 0.03


def test_the_page_holds_what_the_mouse_drew(page):
    sine = shown_wave(page)
    path, tolerance = draw(page, page.locator(".wave canvas"), STROKE)
    wave = shown_wave(page)
    assert_drawn(wave, path, tolerance)
    assert np.array_equal(wave[:30], sine[:30]), "samples outside the stroke must not change"
    assert page.locator("[name=drawn]").input_value() == "1" and page.locator("[name=sine]").input_value() == "0"


def test_a_finger_draws_on_a_phone(chromium, file):
    with watched_page(chromium, (file,), viewport=PHONE, has_touch=True, is_mobile=True) as page:
        page.goto(file)
        path, tolerance = draw(page, page.locator(".wave canvas"), STROKE, with_finger)
        assert_drawn(shown_wave(page), path, tolerance)


def theory(kind):
    n = np.arange(1, 33)
    odd = n % 2
    return {"sine": n == 1, "square": odd * 4 / (np.pi * n), "triangle": odd * 8 / (np.pi * n) ** 2,
            "saw": 2 / (np.pi * n)}[kind]  # fmt: skip


@pytest.mark.parametrize("kind", ["sine", "square", "triangle", "saw"])
def test_harmonics_of_the_basic_waveforms(page, kind):
    for name in ("sine", kind):
        page.locator(f"[name={name}]").fill("1" if name == kind else "0")
    found = 2 * np.abs(np.fft.rfft(shown_wave(page))[1:33]) / 2048
    np.testing.assert_allclose(found, theory(kind), rtol=0.01, atol=1e-6)  # 1 %, and float32's zeros
    bars = page.evaluate(f"Array.from({INSTRUMENT}.amplitudes)")[1:33]
    np.testing.assert_allclose(bars, theory(kind), rtol=0.01, atol=1e-6)


def test_amounts_mix(page):
    for name, amount in (("sine", 0.5), ("square", 0.25), ("saw", 0.25)):
        page.locator(f"[name={name}]").fill(str(amount))
    found = 2 * np.abs(np.fft.rfft(shown_wave(page))[1:4]) / 2048
    signs = np.array([1, -1, 1])  # of the saw's sines
    wanted = 0.5 * theory("sine")[:3] + 0.25 * theory("square")[:3] + 0.25 * signs * theory("saw")[:3]
    np.testing.assert_allclose(found, np.abs(wanted), rtol=0.01)


def test_a_key_sounds_and_the_envelope_ends_it(page):
    page.keyboard.down("a")
    page.wait_for_function(SOUNDS)
    assert page.locator(".piano .on").get_attribute("aria-label") == "C4"
    page.keyboard.up("a")
    page.wait_for_function(f"{INSTRUMENT}.player.sounding.size === 0", timeout=2000)  # after a release of 0.3 s
    page.wait_for_timeout(150)  # the analyser looks back 0.09 s
    assert page.evaluate(f"Math.max(...{INSTRUMENT}.player.samples().map(Math.abs))") < 1e-3
    key = page.get_by_role("button", name="A4", exact=True).bounding_box()
    page.mouse.move(key["x"] + key["width"] / 2, key["y"] + key["height"] - 10)
    page.mouse.down()
    page.wait_for_function(SOUNDS)
    page.mouse.up()
    assert page.locator(".piano .on").count() == 0


RENDER = """async ([source, rate, keys, wave]) => {
  const { output, voice, harmonics, renderNote } = await import(source);
  const context = new OfflineAudioContext(1, rate, rate), { gain } = output(context, 1);
  const envelope = { attack: 0.01, decay: 0.01, sustain: 1, release: 0.1 };
  for (const key of keys) voice(context, gain, harmonics(wave), key, envelope, 0);
  const played = (await context.startRendering()).getChannelData(0);
  return [Array.from(played), Array.from(renderNote(Float32Array.from(wave), keys[0], envelope, rate, 1))];
}"""


def rendered(page, rate, keys, wave):
    source = "data:text/javascript;base64," + base64.b64encode(module().encode()).decode()
    return [np.array(sound) for sound in page.evaluate(RENDER, [source, rate, keys, wave.tolist()])]


def inharmonic(sound, rate, frequency):
    """Levels in dB relative to the fundamental, in the middle half second of `sound`.

    The first is that of the loudest component that is not a multiple of `frequency`, the second that of the loudest
    overtone.
    """
    part = sound[rate // 4 : rate * 3 // 4]
    spectrum = np.abs(np.fft.rfft(part * get_window("blackmanharris", len(part))))
    hertz = np.fft.rfftfreq(len(part), 1 / rate)
    near = np.abs(hertz - np.round(hertz / frequency) * frequency) < 14  # the window's main lobe is 8 Hz to each side
    fundamental = spectrum[np.abs(hertz - frequency) < 14].max()
    overtones = spectrum[near & (hertz > 1.5 * frequency)].max()
    return 20 * np.log10(np.array([spectrum[~near].max(), overtones]) / fundamental)


@pytest.mark.parametrize("rate", [44_100, 48_000])
def test_no_aliasing(page, rate):
    saw = 2 * np.arange(2048) / 2048 - 1  # not band-limited: all harmonics that a cycle can hold
    for key in (HIGHEST, 60, 36):
        for sound in rendered(page, rate, [key], saw):
            aliases, overtones = inharmonic(sound, rate, 440 * 2 ** ((key - 69) / 12))
            assert aliases < -60 and overtones > -12  # a saw's second harmonic is at -6 dB: it was not filtered away


def test_a_fistful_of_keys_stays_below_full_scale(page):
    square = np.sign(np.arange(2048) - 1023.5)
    chord, _ = rendered(page, 48_000, list(range(48, 64)), square)
    one, _ = rendered(page, 48_000, [48], square)
    assert np.abs(one).max() > 0.2 and np.abs(chord).max() <= 1  # sixteen voices of a peak of 0.25


def test_undo_goes_back_step_by_step_and_reset_to_the_sine(page):
    waves = [shown_wave(page)]
    assert page.locator("[name=undo]").is_disabled()
    for change in (
        lambda: page.locator("[name=saw]").fill("0.6"),
        lambda: draw(page, page.locator(".wave canvas"), STROKE),
        lambda: draw(page, page.locator(".wave canvas"), [(0.3, -0.5), (0.6, -0.5)]),
        lambda: page.locator("[name=reset]").click(),
    ):
        change()
        waves.append(shown_wave(page))
    assert len({wave.tobytes() for wave in waves}) == 4 and np.array_equal(waves[0], waves[4])
    for wave in waves[3:0:-1]:
        page.keyboard.press("Control+z")
        assert np.array_equal(shown_wave(page), wave)
    page.locator("[name=undo]").click()
    assert np.array_equal(shown_wave(page), waves[0]) and page.locator("[name=undo]").is_disabled()


def test_the_saved_file_is_what_python_renders(page, tmp_path):
    draw(page, page.locator(".wave canvas"), STROKE)
    page.keyboard.press("h")  # A4
    with page.expect_download() as download:
        page.locator("[name=save]").click()
    assert download.value.suggested_filename == "draw-audio-A4.wav"
    download.value.save_as(tmp_path / "note.wav")
    sound, rate = soundfile.read(tmp_path / "note.wav")
    assert rate == 44_100 and soundfile.info(tmp_path / "note.wav").subtype == "PCM_16"
    wave = shown_wave(page).astype(np.float32)
    wanted = render_notes(wave, [(0.0, 2.0, 69, 127)], len(sound))
    assert len(sound) == round(2.3 * rate) and np.abs(wanted).max() > 0.5
    np.testing.assert_allclose(sound, wanted / max(1, np.abs(wanted).max()), atol=2e-3)  # the peaks of two tables


def test_all_of_it_is_reached_and_played_with_the_keyboard(page):
    page.locator("[name=saw]").fill("0.5")  # now the undo button is enabled
    wanted = {"wave", "piano", *page.evaluate("[...document.querySelectorAll('[name]:not(meta)')].map(e => e.name)")}
    reached = {}
    for _ in range(len(wanted) + 2):  # the cycle includes the page itself
        page.keyboard.press("Tab")
        name, outline, label = page.evaluate(
            "(e => [e.name || e.parentElement.className.replace('panel ', ''), getComputedStyle(e).outlineStyle,"
            " e.ariaLabel || e.closest('label')?.textContent || e.textContent])(document.activeElement)"
        )
        reached[name] = (outline, label.strip())
    reached.pop("", None)  # the page itself
    assert set(reached) == wanted and len(wanted) == 17  # ten sliders, five buttons, wave and piano
    assert all(outline == "solid" and label for outline, label in reached.values())
    page.locator(".wave canvas").focus()
    before = shown_wave(page)
    for key in ["ArrowRight"] * 3 + ["ArrowDown"] * 4:
        page.keyboard.press(key)
    change = shown_wave(page) - before
    place = 2048 // 4 + 3 * 32  # the cursor starts at a quarter of the cycle; a step is 1/64 of it
    assert change[place] == pytest.approx(-0.2, abs=1e-6) and not change[: place - 32].any()
    page.get_by_role("button", name="C4", exact=True).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.down(" ")
    assert page.locator(".piano .on").get_attribute("aria-label") == "C♯4"


@pytest.mark.parametrize(
    "viewport", [DESKTOP, PHONE, {"width": 360, "height": 740}], ids=lambda size: str(size["width"])
)
def test_nothing_sticks_out(chromium, file, viewport):
    with watched_page(chromium, (file,), viewport=viewport) as page:
        page.goto(file)
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
        wider = "e.offsetParent && e.clientWidth && e.scrollWidth > e.clientWidth + 1"
        found = f"[...document.querySelectorAll('.desk *')].filter(e => {wider}).map(e => e.outerHTML.slice(0, 80))"
        assert page.evaluate(found) == []


def test_it_works_in_a_frame_of_another_page(chromium, tmp_path):
    host = tmp_path / "host.html"
    frame = (
        f'<iframe title="Draw audio" style="width: 100%; border: 0" srcdoc="{html.escape(standalone_page())}"></iframe>'
    )
    host.write_text(f"<!doctype html><link rel=icon href=data:,>{frame}")
    with watched_page(chromium, (host.as_uri(), "about:srcdoc", "data:"), viewport=DESKTOP) as page:
        page.goto(host.as_uri())
        inside = page.frame_locator("iframe")
        path, tolerance = draw(page, inside.locator(".wave canvas"), STROKE)
        wave = np.array(inside.locator("body").evaluate(f"() => Array.from({INSTRUMENT}.wave)"))
        assert_drawn(wave, path, tolerance)
        page.wait_for_function("document.querySelector('iframe').clientHeight > 800")  # the frame fits its content


def test_a_drawn_wave_arrives_in_the_kernel_of_a_jupyterlab(chromium, lab):
    address, folder = lab
    write_notebook(folder / "draw.ipynb", [
        "from lib.draw_audio import DrawAudio\nwidget = DrawAudio()\nwidget",
        "import numpy as np\nnp.save('wave.npy', widget.wave)\nwidget.wave = -widget.wave\nprint('saved')",
    ])  # fmt: skip
    with watched_page(chromium, (address, "data:", "blob:", address.replace("http", "ws")), viewport=DESKTOP) as page:
        page.goto(f"{address}lab/tree/draw.ipynb?token=secret")
        page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=40_000)  # earlier keys are ignored
        page.locator(".jp-CodeCell .cm-content").nth(0).click()
        page.keyboard.press("Shift+Enter")
        canvas = page.locator(".draw-audio .wave canvas")
        canvas.wait_for(timeout=30_000)
        canvas.scroll_into_view_if_needed()
        path, tolerance = draw(page, canvas, STROKE)
        cells = page.locator(".jp-CodeCell").count()
        for key in "ab":  # in a notebook: a new cell above, a new cell below
            page.keyboard.press(key)
        assert page.locator(".jp-CodeCell").count() == cells == 2
        held = shown_wave(page)
        page.locator(".jp-CodeCell .cm-content").nth(1).click()
        page.keyboard.press("Shift+Enter")
        page.get_by_text("saved", exact=True).wait_for(timeout=20_000)
        wave = np.load(folder / "wave.npy")
        assert wave.dtype == np.float32 and np.array_equal(wave, held)
        assert_drawn(wave, path, tolerance)
        page.wait_for_function(
            f"{INSTRUMENT}.wave[1024] === {-held[1024]}"
        )  # the page shows the wave that the kernel set
        assert np.array_equal(shown_wave(page), -held)
