"""The styles of the songs, as data.

A rhythm is one bar, a character per sixteenth (16 of them in 4/4, 12 in 3/4 and 12/8-like feels with `swing`):
`X` accent, `x` normal, `o` soft, `g` ghost note, `-` prolongs the last note, `.` rest. In bass lines `R` is the
chord's root, `3 5 7` its tones, `8` the octave, `a` a semitone or tone from the next root, `g` a dead note.
`swing` delays every second eighth (`swing16`: sixteenth) by this share of it. A layer of the stem `other`
is (kind, programs, rhythms, gain in dB); programs are General MIDI numbers or names of `synth.WAVES`.
"""

PIANO, ELECTRIC, ORGAN, CLAV = (0, 1, 2, 3), (4, 5, "fm"), (16, 17, 18, 19), (7,)
NYLON, STEEL, CLEAN, MUTED, DISTORTED = (24,), (25,), (27, 26, 25), (28,), (29, 30, 27)
STRINGS, BRASS, WINDS = (48, 49, 50, 51), (61, 62, 63, 56), (65, 66, 73, 71, 64)
PADS, SYNTHS, PLUCKS = (89, 90, 91, 95, "saw", "hollow"), (81, 80, 90, "saw", "square"), ("pluck", 45, 46, 108, 12)
BELLS, FINGERED, SYNTH_BASS = (9, 11, 10, 98, "fm"), (33, 34, 35, 36), (38, "saw", "square", "sub")
UPRIGHT = (32, 35, 33)

EIGHTHS = ("X.o.x.o.X.o.x.o.", "x.x.x.x.x.x.x.x.", "X.o.X.o.X.o.X.o.")
SIXTEENTHS = ("XgogxgogXgogxgog", "XooxXooxXooxXoox", "x.goX.gox.goX.go")
PAD = ("x---------------",)
HALVES = ("x-------x-------", "x---------------", "x-----x---------")

STYLES = {
    "rock": {
        "tempo": (96, 152), "kits": (0, 8, 16), "tones": "triad", "modes": ("major", "minor", "mixolydian"),
        "bass_programs": (34, 33, 34, 36),
        "kick": ("X.....x.X.......", "X..x..x.X.x.....", "X.......X.x.....", "X.x.....x.x....."),
        "snare": ("....X.......X...", "....X..g....X..g"), "hat": EIGHTHS, "ride": EIGHTHS[:1],
        "bass": ("R.R.R.R.R.R.R.R.", "R--.R.R.R--.R.5.", "R-R---R-R-R---a-"),
        "layers": (
            ("power", DISTORTED, ("x-x-x-x-x-x-x-x-", "x---x-x---x-x-x-", "x-----x---x-----"), -1),
            ("power", DISTORTED, ("x---------------", "x-------x-x-----"), -1),
            ("arpeggio", CLEAN, ("x-x-x-x-x-x-x-x-",), -5),
            ("pad", ORGAN, PAD, -8),
            ("lead", (29, 30), (), -4),
            ("chord", PIANO, ("x---x---x---x---", "x--x--x-x--x--x-"), -6),
        ),
    },
    "pop": {
        "tempo": (92, 128), "kits": (0, 8, 24), "tones": "triad", "modes": ("major", "major", "minor"),
        "bass_programs": FINGERED + SYNTH_BASS,
        "kick": ("X.......X.......", "X......xX.x.....", "X..x....X..x....", "X...X...X...X..."),
        "snare": ("....X.......X...", "....X.......X..o"), "hat": EIGHTHS + SIXTEENTHS[:1],
        "extra": ("shaker", "tambourine"), "bass": ("R-----R-R-----5-", "R---R---R---R-a-", "R.R.R.R.R.R.R.a."),
        "layers": (
            ("chord", PIANO, ("x---x---x---x---", "x--x--x---x-x---"), -3),
            ("chord", STEEL, ("x-xxx-xxx-xxx-xx", "x---x-xx--x-x-xx"), -3),
            ("pad", PADS + STRINGS, PAD, -7),
            ("arpeggio", PLUCKS + CLEAN, ("xoxoxoxoxoxoxoxo", "x-x-x-x-x-x-x-x-"), -5),
            ("arpeggio", MUTED, ("x.x.x.x.x.x.x.x.", "x..x..x.x..x..x."), -6),
            ("lead", BELLS + SYNTHS, (), -6),
        ),
    },
    "funk": {
        "tempo": (92, 116), "kits": (0, 8), "tones": "ninth", "modes": ("dorian", "mixolydian", "minor"),
        "swing16": 0.12, "bass_programs": (36, 37, 33, 34),
        "kick": ("X.x...x..xx.....", "X.x....x..x..x..", "X..x..x...x....."),
        "snare": ("....X..g.g..X..g", "....X.gg.g.gX.g.", "..g.X..g.g..X.og"), "hat": SIXTEENTHS,
        "extra": ("conga", "cowbell"),
        "bass": ("R..gR.8.g.R.7.8.", "R-.R..8g..5.7.R.", "R..R.g8.R.g.5.a.", "R.g8..R.gg7.R.a."),
        "layers": (
            ("stab", CLEAN, ("..x..x..x.xx..x.", "xgg.xg.xgg.xg.xg"), -3),
            ("stab", CLAV, ("x.gxg.x.gx.gx.gx", "x..x.xg.x..xg.x."), -3),
            ("brass", BRASS, ("..........x-x...", "x--...x.........", "......xx..x-----"), -4),
            ("chord", ELECTRIC, ("x-----x---x-----", "..x---x-..x-----"), -4),
            ("pad", ORGAN, HALVES, -8),
        ),
    },
    "ballad": {
        "tempo": (60, 84), "kits": (0, 8, 40, 32), "tones": "seventh", "modes": ("major", "minor"),
        "bass_programs": FINGERED + UPRIGHT,
        "kick": ("X.......X.......", "X.....x.X.......", "X.........x....."),
        "snare": ("....x.......x...", "........X......."), "hat": EIGHTHS + ("o...o...o...o...",),
        "ride": EIGHTHS[:2], "bass": ("R-------5-------", "R-----R-R-----5-", "R-----------a---"),
        "layers": (
            ("arpeggio", PIANO, ("x-x-x-x-x-x-x-x-", "x---x-x-x---x-x-"), -2),
            ("chord", ELECTRIC, HALVES + ("x---x---x---x---",), -3),
            ("pad", STRINGS, PAD, -5),
            ("arpeggio", NYLON + STEEL, ("x-x-x-x-x-x-x-x-",), -4),
            ("lead", WINDS, (), -6),
        ),
    },
    "disco": {
        "tempo": (108, 126), "kits": (0, 8, 24), "tones": "seventh", "modes": ("minor", "dorian", "major"),
        "bass_programs": FINGERED + SYNTH_BASS,
        "kick": ("X...X...X...X...",), "snare": ("....X.......X...", "....X..g....X.g."),
        "hat": SIXTEENTHS + EIGHTHS[:1], "open": ("..x...x...x...x.",), "extra": ("clap", "tambourine", "conga"),
        "bass": ("R.8.R.8.R.8.R.8.", "R.88R.88R.88R.a8", "R..R8.R.5..57.8."),
        "layers": (
            ("stab", CLEAN, ("xgxgxgxxxgxgxgxx", "..x...x...x..xx."), -3),
            ("pad", STRINGS, HALVES, -4),
            ("lead", (48, 50, 73), (), -5),
            ("chord", ELECTRIC + PIANO, ("..x-..x-..x-..x-", "x--x--x-..x---x-"), -3),
            ("brass", BRASS, ("..............xx", "x-.x..x-........"), -5),
        ),
    },
    "house": {
        "tempo": (118, 128), "kits": (24, 25), "tones": "seventh", "modes": ("minor", "dorian"), "electronic": True,
        "bass_programs": SYNTH_BASS, "pump": 0.8,
        "kick": ("X...X...X...X...",), "snare": ("....X.......X...", "................"),
        "hat": ("..x...x...x...x.", "o.x.o.x.o.x.o.xo") + SIXTEENTHS[:1], "open": ("..X...X...X...X.",),
        "extra": ("clap", "shaker", "rim"), "bass": ("..R...R...R...R.", "R..R..R...R..R..", "..R-..RR..R-..8."),
        "layers": (
            ("stab", SYNTHS + PIANO, ("x..x..x..x..x...", "..x..x....x..x..", "x..x..x...x..x.."), -2),
            ("pad", PADS, PAD, -4),
            ("arpeggio", PLUCKS + SYNTHS, ("xoxoxoxoxoxoxoxo", "x.xx.xx.x.xx.xx."), -4),
            ("lead", SYNTHS, (), -6),
        ),
    },
    "shuffle": {
        "tempo": (84, 132), "kits": (0, 32, 8), "tones": "dominant", "modes": ("mixolydian",), "swing": 0.33,
        "blues": True, "bass_programs": (33, 32, 34),
        "kick": ("X.......X.......", "X.....x.X.....x.", "X...x...X...x..."),
        "snare": ("....X.......X...", "....X.....g.X..."), "hat": ("X.o.X.o.X.o.X.o.",),
        "ride": ("X.o.X.o.X.o.X.o.",), "bass": ("R...3...5...7...", "R.R.3.3.5.5.7.5.", "R...5...8...a..."),
        "layers": (
            ("chord", ORGAN, ("..x-..x-..x-..x-", "x---------------"), -5),
            ("power", DISTORTED + CLEAN, ("x-x-x-x-x-x-x-x-",), -4),
            ("chord", PIANO, ("x-.x-.x-..x-..x-", "..x...x...x...x."), -3),
            ("lead", (29, 27, 22, 66), (), -3),
            ("brass", BRASS, ("..x.......x.....",), -5),
        ),
    },
    "country": {
        "tempo": (92, 138), "kits": (0, 8, 40), "tones": "triad", "modes": ("major", "mixolydian"), "swing": 0.1,
        "bass_programs": (32, 33, 34),
        "kick": ("X.......X.......", "X...x...X...x..."),
        "snare": ("....X.......X...", "..x.X.x...x.X.x.", "....X..o....X.oo"), "hat": EIGHTHS,
        "extra": ("tambourine",), "bass": ("R---....5---....", "R---5---R---5-a-", "R---5---8---5---"),
        "layers": (
            ("chord", STEEL, ("..x-..x-..x-..x-", "x-xxx-xxx-xxx-xx"), -2),
            ("arpeggio", (105, 25, 27), ("xoxoxoxoxoxoxoxo", "x-xox-xox-xox-xo"), -4),
            ("lead", (110, 27, 22, 40), (), -4),
            ("chord", PIANO, ("..x-..x-..x-..x-",), -5),
            ("pad", (48, 110), PAD, -9),
        ),
    },
    "r&b": {
        "tempo": (64, 98), "kits": (24, 25, 8), "tones": "ninth", "modes": ("minor", "dorian", "major"),
        "swing16": 0.16, "electronic": True, "bass_programs": SYNTH_BASS + (33, 35, "sub"),
        "kick": ("X......x..x.....", "X..x......x..x..", "X.....x.......x."),
        "snare": ("....X.......X...", "....X.......X..g"),
        "hat": ("x.x.x.xxx.x.x.x.", "xoxoxoxoxoxoxooo") + EIGHTHS[1:2], "extra": ("clap", "rim", "shaker"),
        "bass": ("R------R--R-----", "R--.......5-R---", "R-----8-.-R---a-"),
        "layers": (
            ("chord", ELECTRIC, ("x-------..x-----", "x-----x---------", "..x---------x---"), -1),
            ("pad", PADS, PAD, -5),
            ("arpeggio", PLUCKS + BELLS, ("x..x..x...x..x..",), -6),
            ("stab", CLEAN, ("......x.......x.", "..x.......x..x.."), -5),
            ("lead", SYNTHS, (), -8),
        ),
    },
    "hip hop": {
        "tempo": (76, 98), "kits": (25, 0, 24, 8), "tones": "seventh", "modes": ("minor", "dorian"), "swing16": 0.22,
        "electronic": True, "rap": 0.5, "pump": 0.2, "bass_programs": ("sub", "sub", 33, 32, 38),
        "kick": ("X.x.....x.x.....", "X......x.xx.....", "X..x...x..x....."),
        "snare": ("....X.......X...", "....X..g....X..."), "hat": ("x.x.x.x.x.x.x.x.", "x.xox.x.x.xox.xx"),
        "extra": ("clap", "rim"), "bass": ("R-.....R..R-....", "R---------5---7-", "R--R--..R-....a-"),
        "layers": (
            ("chord", ELECTRIC + PIANO, ("x-------x-------", "x---x---x---x---", "x-.x-.x-........"), -2),
            ("pad", STRINGS + PADS, PAD, -6),
            ("arpeggio", PLUCKS + NYLON + PIANO, ("x-.x-.x-x-.x-.x-",), -4),
            ("brass", BRASS, ("x-..........x...",), -5),
            ("lead", BELLS, (), -7),
        ),
    },
    "metal": {
        "tempo": (110, 176), "kits": (16, 8), "tones": "triad", "modes": ("minor", "phrygian"), "crashy": True,
        "bass_programs": (34, 34, 33),
        "kick": ("X.xxX.xxX.xxX.xx", "X.x.X.x.X.x.X.x.", "XxxxXxxxXxxxXxxx", "X.....xxX..xx..."),
        "snare": ("....X.......X...", "........X......."), "hat": ("X...X...X...X...", "X.x.X.x.X.x.X.x."),
        "ride": ("X...X...X...X...",), "bass": ("R.RRR.RRR.RRR.RR", "R.R.R.R.R.R.R.R.", "R--R--R---R-RRRR"),
        "layers": (
            ("power", (30, 29, 28), ("x.xxx.xxx.xxx.xx", "x--x--x---x-xxxx"), 0),
            ("power", (30, 29), ("x-------x---x---", "x---------------"), -1),
            ("lead", (30, 29), (), -4),
            ("pad", (48, 52, 95), PAD, -9),
        ),
    },
    "soul": {
        "tempo": (80, 124), "kits": (0, 8, 32), "tones": "seventh", "modes": ("major", "mixolydian", "dorian"),
        "bass_programs": (33, 32, 35),
        "kick": ("X.......X.x.....", "X.x.....X.......", "X..x....x.x....."),
        "snare": ("X...X...X...X...", "....X.......X...", "....X..g.g..X..."), "hat": EIGHTHS,
        "extra": ("tambourine", "conga"), "bass": ("R--R5---8--5R-a-", "R---3---5---3-a-", "R-.R..5.8-.5..a."),
        "layers": (
            ("stab", CLEAN, ("....x.......x...", "..x...x...x...x."), -4),
            ("chord", PIANO + ELECTRIC, ("x---x---x---x---", "x--x--x-x--x--x-"), -2),
            ("brass", BRASS + WINDS[:2], ("x-x.......x-x...", "......x-x---....", "x-----.........."), -2),
            ("pad", ORGAN + STRINGS, HALVES, -6),
            ("lead", WINDS, (), -6),
        ),
    },
    "synth pop": {
        "tempo": (104, 138), "kits": (24, 25, 16), "tones": "triad", "modes": ("minor", "major", "dorian"),
        "electronic": True, "pump": 0.4, "bass_programs": SYNTH_BASS,
        "kick": ("X...X...X...X...", "X.....x.X.......", "X..x....X..x...."), "snare": ("....X.......X...",),
        "hat": EIGHTHS + SIXTEENTHS[1:2], "open": ("..x...x...x...x.",), "extra": ("clap", "tambourine"),
        "bass": ("RRRRRRRRRRRRRRRR", "R.R.R.R.R.R.R.R.", "R.88R.88R.88R.88"),
        "layers": (
            ("arpeggio", SYNTHS + PLUCKS, ("xoxoxoxoxoxoxoxo", "x.xox.xox.xox.xo"), -3),
            ("pad", PADS, PAD, -3),
            ("lead", SYNTHS, (), -4),
            ("stab", SYNTHS, ("x..x..x.x..x..x.", "....x.......x..."), -4),
            ("chord", CLEAN, ("x-------x-------",), -6),
        ),
    },
    "indie": {
        "tempo": (104, 160), "kits": (0, 8), "tones": "triad", "modes": ("major", "minor", "dorian"),
        "bass_programs": (34, 33),
        "kick": ("X...X...X...X...", "X..x..x.X..x..x.", "X.....x.X.x....."),
        "snare": ("....X.......X...", "....X..X....X..X", "..x.X.x.x.x.X.x."), "hat": SIXTEENTHS + EIGHTHS,
        "extra": ("tambourine", "shaker"), "bass": ("R.R.R.R.5.5.5.5.", "R--R--R-R--R--8-", "R-R-8-R-R-R-5-a-"),
        "layers": (
            ("arpeggio", CLEAN, ("x-x-x-x-x-x-x-x-", "xoxoxoxoxoxoxoxo", "x-xx-xx-x-xx-xx-"), -1),
            ("chord", STEEL + CLEAN, ("x-x-x-x-x-x-x-x-", "x---x-xx-xx-x-xx"), -3),
            ("pad", ORGAN + PADS, PAD, -7),
            ("lead", CLEAN + SYNTHS, (), -4),
            ("power", DISTORTED, HALVES, -3),
        ),
    },
    "reggae": {
        "tempo": (66, 92), "kits": (0, 8), "tones": "triad", "modes": ("minor", "major", "mixolydian"),
        "swing16": 0.15, "bass_programs": (33, 32, 35, "sub"),
        "kick": ("........X.......", "X.......X.......", "....X.......X..."),
        "snare": ("........X.......", "........X.....g."), "hat": ("x.o.x.o.x.o.x.o.", "..x...x...x...xo"),
        "extra": ("rim", "conga"), "bass": ("R--.R-3-5-....5-", "..R-R-5-..8-5-3-", "R-----5-8--5----"),
        "layers": (
            ("stab", CLEAN, ("....x.......x...", "....x.x.....x.x."), -1),
            ("stab", ORGAN, ("..x.x.x...x.x.x.", "..x...x...x...x."), -4),
            ("chord", PIANO, ("....x.......x...",), -5),
            ("brass", BRASS + (57,), ("x-x-..........x-",), -5),
            ("lead", (22, 27, 56), (), -6),
        ),
    },
    "bossa": {
        "tempo": (108, 148), "kits": (40, 32, 0), "tones": "ninth", "modes": ("major", "minor", "dorian"),
        "bass_programs": UPRIGHT,
        "kick": ("X..oX..oX..oX..o", "X.....o.X.....o."), "snare": ("................",),
        "rim": ("x..x..x...x..x..", "x..x...x..x..x.."), "hat": ("xoxoxoxoxoxoxoxo", "x.o.x.o.x.o.x.o."),
        "extra": ("shaker", "conga"), "bass": ("R--5R--.5--R5---", "R-----5-R-----a-"),
        "layers": (
            ("chord", NYLON, ("x--x--x---x--x--", "x-x--x-x--x--x--"), 0),
            ("pad", STRINGS, PAD, -8),
            ("chord", ELECTRIC, ("..x---x-..x-----",), -5),
            ("lead", WINDS + (11,), (), -4),
        ),
    },
    "waltz": {
        "tempo": (88, 160), "kits": (0, 32, 40), "tones": "triad", "modes": ("major", "minor"), "steps": 12,
        "bass_programs": UPRIGHT + (33,),
        "kick": ("X...........", "X.......o..."), "snare": ("....x...x...", "........X..."),
        "hat": ("x...x...x...", "x.o.x.o.x.o."), "bass": ("R-----------", "R-------5---", "R---3---5-a-"),
        "layers": (
            ("chord", STEEL + (22,), ("....x---x---",), -1),
            ("arpeggio", PIANO + (46,), ("x-x-x-x-x-x-",), -3),
            ("pad", STRINGS, ("x-----------",), -5),
            ("lead", (40, 22, 73), (), -4),
        ),
    },
    "garage": {
        "tempo": (126, 138), "kits": (24, 25), "tones": "ninth", "modes": ("minor", "dorian"), "electronic": True,
        "swing16": 0.3, "bass_programs": ("saw", "sub", "square", "fm"), "pump": 0.5,
        "kick": ("X.........x.....", "X.....x...x.....", "X...X...X...X..."),
        "snare": ("....X.......X...", "....X..g....X.g."), "hat": ("..x...x...x..xx.", "x.xox.xox.xox.xo"),
        "open": ("..X...X...X...X.", "......x.......x."), "extra": ("clap", "rim", "shaker"),
        "bass": ("R..R..R.....8.R.", "R-....R..R-...7.", "..R-..R-..R.R-.."),
        "layers": (
            ("stab", ELECTRIC + SYNTHS, ("..x..x....x..x..", "x..x..x....x....", "...x..x...x..x.."), -1),
            ("pad", PADS, PAD, -5),
            ("arpeggio", PLUCKS + BELLS, ("x..x..x.x..x..x.", "..x.x..x..x.x..x"), -4),
            ("stab", PIANO, ("x..x..x...x.x...",), -3),
            ("lead", SYNTHS, (), -7),
        ),
    },
    "big beat": {
        "tempo": (98, 132), "kits": (0, 16, 24), "tones": "triad", "modes": ("minor", "dorian", "mixolydian"),
        "electronic": True, "bass_programs": ("saw", "square", "sub", 38, 36), "crashy": True, "pump": 0.3,
        "kick": ("X.x.....x.X.....", "X..x..x...x..x..", "X.x...x...x....."),
        "snare": ("....X..g.g..X..g", "....X.......X.xx", "....X..X....X..g"),
        "hat": SIXTEENTHS + EIGHTHS[:1], "extra": ("tambourine", "cowbell", "clap"),
        "bass": ("R-R.....R-R.8...", "R...R.R...7.R...", "R-----R---5-7---"),
        "layers": (
            ("stab", SYNTHS + ORGAN, ("x..x..x.........", "x.......x.x.....", "....x.....x....."), -1),
            ("power", DISTORTED, ("x-------x-x-----", "x---------------"), -2),
            ("arpeggio", SYNTHS, ("xoxoxoxoxoxoxoxo", "x.xx..x.x.xx..x."), -3),
            ("brass", BRASS, ("x.x.............", "............x-x."), -4),
            ("lead", SYNTHS, (), -5),
            ("pad", PADS + STRINGS, PAD, -5),
        ),
    },
    "trap": {
        "tempo": (62, 78), "kits": (24, 25), "tones": "triad", "modes": ("minor", "phrygian"), "electronic": True,
        "rap": 0.5, "bass_programs": ("sub", "sub", "square"), "pump": 0.3,
        "kick": ("X.....x..x......", "X..x......x....x", "X.x...........x."),
        "snare": ("........X.......", "........X.....x."),
        "hat": ("xoxoxoxoxoxoxoxo", "x.xxx.xoxxx.xxxx", "xxxxx.x.x.xxxxxx"),
        "open": ("..............x.", "................"), "extra": ("clap", "rim"),
        "bass": ("R-------.R------", "R--R------......", "R-----------8---"),
        "layers": (
            ("arpeggio", PLUCKS + BELLS, ("x--x--x-x--x--x-", "x.x.x.x.x.x.x.x."), -2),
            ("pad", PADS + STRINGS, PAD, -3),
            ("chord", PIANO + ELECTRIC, ("x-------x-----x-", "x---------------"), -3),
            ("lead", SYNTHS + WINDS, (), -6),
            ("stab", BRASS + SYNTHS, ("x.......x..x....",), -4),
        ),
    },
    "drum and bass": {
        "tempo": (162, 176), "kits": (24, 0, 8), "tones": "seventh", "modes": ("minor", "dorian"), "electronic": True,
        "bass_programs": ("saw", "sub", "square", 38),
        "kick": ("X.........x.....", "X.x.......x.....", "X.x......xx..x.."),
        "snare": ("....X..g.g..X..g", "....X..g.gg.X...", "....X..x.x..X.gx"), "pump": 0.5,
        "hat": EIGHTHS + SIXTEENTHS[2:], "open": ("......x.......x.",), "extra": ("shaker", "conga"),
        "bass": ("R-------8---R-5-", "R------R--------", "R-R---8---7---5-"),
        "layers": (
            ("pad", PADS, PAD, -2),
            ("stab", ELECTRIC + SYNTHS, ("x.....x.........", "x..x..x........."), -3),
            ("arpeggio", PLUCKS + BELLS, ("x-x-x-x-x-x-x-x-",), -5),
            ("lead", SYNTHS, (), -6),
        ),
    },
}  # fmt: skip
# Layers that a dense song may add: choirs and leads in the singer's range, close strings, busy arpeggios.
DENSE = (
    ("pad", (52, "saw"), PAD, -1),
    ("lead", (65, 71, 73, "saw"), (), -2),
    ("arpeggio", PLUCKS + SYNTHS, ("xoxoxoxoxoxoxoxo", "xxxxxxxxxxxxxxxx"), -2),
    ("chord", (52, 48, 61), ("x---x---x---x---", "x--x--x-x--x--x-"), -1),
)  # fmt: skip
HELD_OUT = ("reggae", "bossa", "waltz", "drum and bass")  # only the shifted test set has these
FAMILIAR = tuple(name for name in STYLES if name not in HELD_OUT)

MODES = {
    "major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10), "dorian": (0, 2, 3, 5, 7, 9, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10), "phrygian": (0, 1, 3, 5, 7, 8, 10),
}  # fmt: skip
# Degrees of the chords, one per bar, by mode (`minor` also serves dorian and phrygian).
PROGRESSIONS = {
    "major": ((0, 4, 5, 3), (0, 5, 3, 4), (0, 3, 4, 4), (0, 3, 0, 4), (5, 3, 0, 4), (0, 2, 3, 4), (1, 4, 0, 0),
              (0, 1, 3, 0), (3, 4, 2, 5), (0, 4, 3, 4)),
    "mixolydian": ((0, 6, 3, 0), (0, 0, 6, 3), (0, 3, 6, 0), (0, 4, 3, 0), (0, 6, 0, 3), (0, 0, 3, 3)),
    "minor": ((0, 5, 2, 6), (0, 6, 5, 6), (0, 3, 0, 4), (0, 5, 3, 4), (0, 2, 6, 3), (0, 0, 5, 6), (3, 6, 2, 5),
              (0, 3, 6, 2), (0, 6, 3, 0)),
    "blues": ((0, 3, 0, 4), (0, 0, 3, 0), (3, 3, 0, 0), (4, 3, 0, 4), (0, 3, 0, 0)),
}  # fmt: skip
TONES = {"triad": (0, 2, 4), "seventh": (0, 2, 4, 6), "ninth": (0, 2, 4, 6, 8), "dominant": (0, 2, 4, 6)}
