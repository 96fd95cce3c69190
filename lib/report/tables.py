"""The report's tables, computed from result files and from nothing else.

Every value of the table is an SDR in dB: the median over 1-s frames, then over tracks, then the mean over seeds, as in
the published Demucs v1 row.
"""

import re
from html import escape
from pathlib import Path

import pandas as pd
from IPython.display import HTML

from lib.common.errors import UserError
from lib.common.files import atomic, read_json
from lib.common.provenance import portable
from lib.common.words import plain, signed
from lib.data.musdb import PROVIDED
from lib.data.tracks import SAMPLERATE, SOURCES
from lib.evaluation import results
from lib.evaluation.results import PRIMARY_DETAIL
from lib.evaluation.stats import COLUMNS, prediction_interval, stem_table, stems_in
from lib.report.audio import NO_MATH

DEMUCS, GAN = "Demucs v1", "Demucs v1 + GAN (first report)"  # names in published_sdr.csv
PUBLISHED = "Published, on the MUSDB18 test tracks"
TEST = "Measured here, on: test"
OTHERS = "Other published systems, on the MUSDB18 test tracks"
PER_TRACK = "median of frames, median of tracks"
METRIC_NAMES = {"fast": "lib.evaluation.bsseval"}  # {name in about.json: the program}
DIFFERENCE, HALF_WIDTH = "Difference", "95 % prediction half-width"
DOSE_METRICS = ("SDR", PRIMARY_DETAIL)
FACTS = ["tracks", "seeds", "aggregation", "data", "computed from", "metric"]


def sdr_table(run, museval_folders=None):
    """SDR per stem (dB) of the published systems and of everything evaluated in `run`.

    museval_folders: {label: folder} of other systems' museval files; each adds a row to the section whose tracks it
    shares. Returns a DataFrame with the columns section, system, the names of the stems, all, tracks, seeds,
    aggregation, data (trained on), computed from and metric (the program that computed the frames). Published systems
    and museval_folders are left out of a run whose stems are not theirs. Raises `UserError`, naming the tracks, where a
    row is incomplete.
    """
    scores = {test_set: results.measured(run, test_set) for test_set in results.evaluated_sets(run)}
    stems = stems_in(pd.concat(scores.values())) if scores else list(SOURCES)
    rows, sections = {}, {}  # section → its rows, its tracks
    if set(stems) == set(SOURCES):
        rows = {PUBLISHED: _published_rows(), OTHERS: _other_rows()}
        sections = {OTHERS: set(results.published_tracks()["track"])}
    for test_set, found in scores.items():
        section = f"Measured here, on: {test_set}"
        rows[section], sections[section] = _measured_rows(run, test_set, found, stems)
    for label, folder in (museval_folders or {}).items():
        if OTHERS in rows:
            section, row = _folder_row(label, Path(folder), sections)
            rows[section].append(row)
    table = pd.DataFrame([{"section": section, **row} for section in rows for row in rows[section]])
    return table[["section", "system", *stems, "all", *FACTS]]


def value_columns(table):
    """The columns of `sdr_table` that hold an SDR: the stems, and all."""
    return [name for name in table if name not in ("section", "system", *FACTS)]


def _published_rows():
    seeds, gan = results.published_seeds(), results.published_systems().loc[GAN]
    interval = prediction_interval(seeds)
    common = {
        "tracks": 50,
        "seeds": f"{len(seeds)} ({seeds.index[0]}–{seeds.index[-1]})",
        "aggregation": f"{PER_TRACK}, mean of seeds",
        "data": "MUSDB18",
        "computed from": "reference/museval_track_medians.csv",
        "metric": "museval, published with Demucs v1",
    }
    reported = {
        **common, "seeds": "not stated", "aggregation": "as reported", "metric": "as reported",
        "computed from": gan["source"],
    }  # fmt: skip
    subtracted = {**reported, "computed from": "the two rows above"}
    spread = {**common, "aggregation": "t · SD · √(1 + 1/n) over seeds, for one more run"}
    return [
        {"system": DEMUCS, **interval["mean"], **common},
        {"system": "Demucs v1 + GAN (as reported)", **gan[list(COLUMNS)], **reported},
        {"system": DIFFERENCE, **(gan[list(COLUMNS)] - interval["mean"]), **subtracted},
        {"system": HALF_WIDTH, **interval["half_width"], **spread},
    ]


def _other_rows():
    rows = []
    for system, published in results.published_systems().drop(index=[DEMUCS, GAN]).iterrows():
        songs = published["extra_training_songs"]
        seeds = re.search(r"mean of (\d+) seeds", published["source"])
        recomputed = published["recomputed"] == "yes"
        rows.append({
            "system": system,
            **published[list(COLUMNS)],
            "tracks": 50,
            "seeds": seeds[1] if seeds else "not stated",
            "aggregation": PER_TRACK + ", mean of seeds" * bool(seeds) if recomputed else "as reported",
            "data": f"{songs:,} extra songs" if songs else "MUSDB18",
            "computed from": published["source"],
            "metric": "museval, published with Demucs v1" if recomputed else "as reported",
        })  # fmt: skip
    return rows


def _measured_rows(run, test_set, scores, stems):
    """The rows of one test set, and its tracks: those that any arm was to be evaluated on.

    scores: `lib.evaluation.results.measured` of it.
    """
    folders = pd.DataFrame(results.evaluated(run, test_set), columns=["arm", "seed", "folder"])
    abouts = [read_json(folder / "about.json") for folder in folders["folder"]]
    folders["metric"] = [METRIC_NAMES.get(about["metric"], about["metric"]) for about in abouts]
    folders["commit"] = [about["made_by"]["commit"] for about in abouts]
    tracks = {track for about in abouts for track in about["tracks"]}

    rows, per_seed, names = [], {}, results.arm_names(stems)
    for arm, group in folders.groupby("arm", sort=False):
        found = scores[scores["arm"] == arm]
        by_seed = found.groupby("seed", dropna=False)
        per_seed[arm] = pd.DataFrame({seed: stem_table(r, tracks, stems=stems) for seed, r in by_seed}).T
        rows.append({
            "system": names.get(arm, arm),
            **per_seed[arm].mean(),
            "tracks": len(tracks),
            "seeds": _seeds(group["seed"].dropna()),
            "aggregation": PER_TRACK + ", mean of seeds" * (len(group) > 1),
            "data": "nothing" if arm == "mixture" else "training tracks of this run",
            "computed from": _folders(group),
            "metric": ", ".join(sorted(set(group["metric"]))),
        })  # fmt: skip
    for arm, row in list(zip(per_seed, rows, strict=True)):
        paired = per_seed[arm].index.intersection(per_seed["l1"].index) if "l1" in per_seed else []
        if arm in ("mixture", "pretrain", "l1") or not len(paired):
            continue
        rows.append({
            **row,
            "system": f"{DIFFERENCE}: {row['system']} − L1",
            **(per_seed[arm] - per_seed["l1"]).loc[paired].mean(),
            "seeds": _seeds(paired),
            "aggregation": "paired by seed, mean of seeds",
            "computed from": "the rows above",
        })  # fmt: skip
    return rows, tracks


def _seeds(seeds):
    """3 (0, 1, 2): how many and which."""
    return f"{len(seeds)} ({', '.join(map(str, seeds))})" if len(seeds) else "none"


def _folders(group):
    """quick/l1-0, quick/l1-1 at commit 0123456789: the scored folders and the code that scored them."""
    names = [f"{folder.parents[2].name}/{folder.parents[1].name}" for folder in group["folder"]]
    return f"{', '.join(names)} at commit {', '.join(sorted(set(group['commit'])))}"


def _folder_row(label, folder, sections):
    """(section, row) of another system's museval files.

    The section with exactly its tracks, else the first that shares a track; missing tracks are then named.
    """
    scores = results.read_museval(folder)
    found = set(scores["track"])
    exact = [section for section, tracks in sections.items() if tracks == found]
    shared = [section for section, tracks in sections.items() if tracks & found]
    if not shared:
        raise UserError(f"'{label}' ({folder}) shares no track with any section; evaluate it on their tracks.")
    section = (exact or shared)[0]
    return section, {
        "system": label,
        **stem_table(scores, expected_tracks=sections[section]),
        "tracks": len(found),
        "seeds": "not stated",
        "aggregation": PER_TRACK,
        "data": "not stated",
        "computed from": portable(folder),
        "metric": "museval files as given",
    }


def dose_table(tracks):
    """SDR and the primary measure of detail by the discriminator's share of the gradient, on the test tracks.

    tracks: `lib.evaluation.results.arms_table`. A share is the number at the end of an arm's name, as of gan-share-0.1;
    l1 has 0. Of seeds, those that all these arms have. Returns a DataFrame with the columns share, arm, seed, stem (the
    last: all), SDR and `PRIMARY_DETAIL`: the values of the table's row. It is empty without such an arm.
    """
    names = tracks["arm"].unique()
    shares = {arm: float(match[1]) for arm in names if (match := re.fullmatch(r"gan-share-(\d*\.?\d+)", arm))}
    shares = {"l1": 0.0} | shares if shares else {}
    rows, stems, found = [], stems_in(tracks), tracks[(tracks["test_set"] == "test") & tracks["arm"].isin(shares)]
    common = found.groupby("seed")["arm"].transform("nunique") == len(shares)
    for (arm, seed), group in found[common].groupby(["arm", "seed"]):
        measured = {metric: stem_table(group, None, metric, stems) for metric in DOSE_METRICS}
        rows += [
            {"share": shares[arm], "arm": arm, "seed": seed, "stem": stem}
            | {m: row[stem] for m, row in measured.items()}
            for stem in (*stems, "all")
        ]
    columns = ["share", "arm", "seed", "stem", *DOSE_METRICS]
    return pd.DataFrame(rows, columns=columns).sort_values(["share", "seed"], kind="stable", ignore_index=True)


def write_tables(run, museval_folders=None):
    """Write `run`/sdr_table.csv and `run`/arms.csv (every per-track result); returns both DataFrames.

    Writes `run`/dose.csv too, if there are arms of several shares.
    """
    arms = results.arms_table(run)
    table = sdr_table(run, museval_folders)
    dose = dose_table(arms)
    if len(dose):
        with atomic(Path(run) / "dose.csv") as file:
            dose.to_csv(file, index=False, float_format="%.5f")
    with atomic(Path(run) / "sdr_table.csv") as file:
        table[["system", *value_columns(table), "section", *FACTS]].to_csv(file, index=False, float_format="%.6f")
    with atomic(Path(run) / "arms.csv") as file:
        arms.to_csv(file, index=False, float_format="%.5f")
    return table, arms


CSS = """<style>
table.sdr {border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; color: #1d2330}
table.sdr tr, table.sdr tr:nth-child(odd), table.sdr tr:hover {background: white}
table.sdr th, table.sdr td {padding: 3px 9px; text-align: right; border: 0; background: white; vertical-align: top;
  white-space: nowrap}
table.sdr th {border-bottom: 1.5px solid #333} table.sdr .t {text-align: left}
table.sdr td.h {text-align: left; font-weight: 600; padding-top: 12px; border-bottom: 1px solid #bbb}
table.sdr td.n {color: #777; font-size: 11px; text-align: left; white-space: normal; min-width: 16em}
</style>"""


def style_table(table):
    """`sdr_table` as `IPython.display.HTML`: two decimals, a heading per section, its best values in bold.

    No colour marks a sign: whether a difference means something is said by its interval, not here. Oracles,
    differences, half-widths and rows that are not `complete` are never in bold.
    """
    columns = value_columns(table)
    stems = "".join(f"<th>{escape(column.capitalize())}</th>" for column in columns)
    lines = [f"<th class=t>SDR in dB</th>{stems}<th>Tracks</th><th class=t>Seeds</th><th class=t>How</th>"]
    for section, rows in table.groupby("section", sort=False):
        lines.append(f"<td class=h colspan={len(columns) + 4}>{escape(section)}</td>")
        competing = ~rows["system"].str.contains(f"^{DIFFERENCE}|^{HALF_WIDTH}|oracle") & complete(rows)
        best = rows.loc[competing, columns].round(2).max()
        for index, row in rows.iterrows():
            lines.append(_html_cells(row, columns, best if competing[index] else {}))
    return HTML(f"{CSS}<table class='sdr {NO_MATH}'>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>")


def complete(rows):
    """Which rows of a section have every pre-training of L1: means over others must not be compared with its row."""
    l1 = rows.loc[rows["system"] == results.ARMS["l1"], "seeds"]
    return rows["seeds"].isin([*l1, "none"]) if len(l1) else pd.Series(data=True, index=rows.index)


def _html_cells(row, columns, best):
    """The cells of one row; `best`: {column: the value to print in bold}."""
    cells = [f"<td class=t>{escape(row['system'])}</td>"]
    for column in columns:
        value, text = round(row[column], 2), shown(row, column)
        text = "± " * (row["system"] == HALF_WIDTH) + text
        cells.append(f"<td><b>{text}</b></td>" if value == best.get(column) else f"<td>{text}</td>")
    how = "; ".join(dict.fromkeys([row["aggregation"], row["metric"]]))  # once where both say "as reported"
    cells.append(f"<td>{escape(str(row['tracks']))}</td><td class=t>{escape(row['seeds'])}</td>")
    cells.append(f'<td class=n title="{escape(row["computed from"])}">{escape(how)}</td>')
    return "".join(cells)


def shown(row, column):
    """The value of a row with two decimals; signed in rows of differences."""
    return (signed if row["system"].startswith(DIFFERENCE) else plain)(row[column])


def found_tracks(index):
    """What 01-data found and did, from its data.json: DataFrame set, track, seconds, what was done.

    Every track of a folder, of other data those to which something was done; then what was left out, with the reason.
    """
    content, rows = read_json(index), []
    for name, tracks in content["sets"].items():
        for track in tracks:
            if content["root"] not in PROVIDED or track.get("remarks"):
                seconds = f"{track['samples'] / SAMPLERATE:.1f}"
                rows.append((name, track["name"], seconds, " ".join(track.get("remarks", ["nothing"]))))
    rows += [("left out", Path(path).name, "", sentence) for path, sentence in content.get("refused", {}).items()]
    return pd.DataFrame(rows, columns=["set", "track", "seconds", "what was done"])


def plain_table(table):
    """A DataFrame as `IPython.display.HTML` that shows names as they are; pandas' own would set $x$ as a formula.

    Numbers have a true minus sign, and what is missing a dash.
    """
    with pd.option_context("display.max_colwidth", None):  # sentences are shown whole
        return HTML(re.sub(r"<td>-(?=[\d.]+</td>)", "<td>−", table.to_html(classes=NO_MATH, na_rep="–")))


def folded(summary, table):
    """`table`, an `IPython.display.HTML`, behind a line that opens it."""
    return HTML(f"<details><summary>{escape(summary)}</summary>{table.data}</details>")


def transfer(table, variants, songs=True):
    """SDR in dB on real songs after trainings on several data sets; a row per song and stem, and over several songs.

    table: of `lib.studies.transfer`; variants: {variant: its name in the table}. Columns: the mixture ÷ 4, the mean
    over seeds of each variant, and their standard deviation over seeds. songs: whether to show every song. Over several
    songs, a row is the median of each set, or the mean over the songs of all.
    """
    rows = table[table["variant"].isin(variants)]
    means = rows.groupby(["variant", "seed", "stem"])[["sdr", "mixture"]].mean().reset_index()
    medians = rows.groupby(["set", "variant", "seed", "stem"])[["sdr", "mixture"]].median().reset_index()
    medians["song"] = medians["set"].map("Median over the {}".format)
    means["song"] = f"Mean over all {rows['song'].nunique()} songs"
    rows = pd.concat([rows[rows["set"] == rows["set"].iloc[0]]] * songs + [means, medians])
    values = rows.groupby(["song", "stem", "variant"], sort=False)["sdr"].agg(["mean", "std"]).unstack()
    mixture = rows.groupby(["song", "stem"], sort=False)["mixture"].first()
    columns = {"mixture ÷ 4": mixture} | {name: values["mean", key] for key, name in variants.items()}
    columns |= {f"± {name}": values["std", key] for key, name in variants.items()}
    return pd.DataFrame(columns).reindex(SOURCES, level="stem").round(2)
