"""Answers that are wrong, hedged, or none, however near they come: completion ~~ truth."""

import pytest

from gemsmith.sandboxes.mathematics.verifier import MathVerifier
from gemsmith.sandboxes.verdict import Status, Verdict

PAIRS = r"""
4 = 5                              ~~ 5
\boxed{x = 5 = y = 6}              ~~ 6
\boxed{6 \text{ if } x = 5}        ~~ 5
\boxed{5 \approx 6}                ~~ 5
\boxed{5 \equiv 6}                 ~~ 6
\boxed{5 \lor 6}                   ~~ 5
\boxed{5 \\ 6}                     ~~ 5
\boxed{5 \% 6}                     ~~ 5
\boxed{{5}{6}}                     ~~ 5
\boxed{\phantom{5}6}               ~~ 6
5或6                                ~~ 5
5หรือ6                             ~~ 5
5、6                                ~~ 5
5 oder 6                           ~~ 5
\boxed{x>0, x<1}                   ~~ (0,1)
\boxed{\emptyset}                  ~~ 0
\boxed{2n\pi}                      ~~ n\pi
\boxed{x_1+x_2}                    ~~ x_1+x_3
\boxed{\sqrt[3]{2}}                ~~ \sqrt{2}
\boxed{10:30 \text{ am}}           ~~ 10:30 \text{ pm}
36^\circ                           ~~ \$36
50%                                ~~ \$50
50%                                ~~ 50^\circ
-5                                 ~~ 5
5                                  ~~ -5
10,00                              ~~ 1000
1,0000                             ~~ 10000
1                                  ~~ 1e3
1.5 \times 10^3                    ~~ 1.5 \times 10^{4}
2                                  ~~ 1/2
1                                  ~~ 1/2
-1/2                               ~~ 1/2
-\frac{1}{2}                       ~~ \frac{1}{2}
0.33                               ~~ 1/3
0.3333333333                       ~~ 1/3
0.333...                           ~~ 1/3
0.\overline{6}                     ~~ 1/3
11/2                               ~~ 1 1/2
3.14                               ~~ \pi
3.141592653589793                  ~~ \pi
1.414214                           ~~ \sqrt{2}
5!                                 ~~ 120
3+4                                ~~ 7
2^{10}                             ~~ 1024
100/4                              ~~ 25
1.234                              ~~ 1234
5 cm                               ~~ 5 m
$5                                 ~~ 5 cents
5 pm                               ~~ 5 am
50%                                ~~ 0.5
0.5                                ~~ 50\%
5 million                          ~~ 5
5 thousand                         ~~ 5
2 thirds                           ~~ 2
5 dozen                            ~~ 5
5 and a half                       ~~ 5
5x                                 ~~ 5
5 x                                ~~ 5
5t                                 ~~ 5
5\pi                               ~~ 5
5i                                 ~~ 5
5e                                 ~~ 5
5\text{ or }6                      ~~ 5
5t+2                               ~~ 5t+2s
a+3                                ~~ a+3d
2\pi h                             ~~ 2\pi
y=5                                ~~ x=5
120 = 15*8                         ~~ 120
x \ne 5                            ~~ 5
x != 5                             ~~ 5
x < 5                              ~~ 5
x \le 5                            ~~ 5
x <= 5                             ~~ 5
x >= 5                             ~~ 5
x^2 = 25, x = 5                    ~~ 5
5x - 7y = 0                        ~~ 0
5x-7y+11z+5=0                      ~~ 5x - 7y + 11z + 4 = 0
y=2x+4                             ~~ y = 2x + 3
x=2y+3                             ~~ y = 2x + 3
2x-3                               ~~ 2x+3
x^2+1                              ~~ x^2+2x+1
\sqrt{199}                         ~~ \sqrt{200}
-\sqrt{2}                          ~~ \sqrt{2}
1+12i                              ~~ 1-12i
2^{100}+1                          ~~ 4^{50}
\frac{1}{2^{100}}                  ~~ \frac{1}{2^{101}}
10^{-20}\sqrt2                     ~~ 10^{-21}\sqrt2
\sqrt{2}+10^{-18}                  ~~ \sqrt 2
x^3                                ~~ x^2
\ln 2                              ~~ \log 2
|x|                                ~~ x
q-p                                ~~ p - q
\tan x                             ~~ \cot x
x                                  ~~ y
\infty                             ~~ -\infty
\text{undefined}                   ~~ 0
(1,2)                              ~~ [1,2]
(2,1)                              ~~ (1,2)
(1,2)                              ~~ \{1,2\}
\{1,2\}                            ~~ (1,2)
\{1,2,3\}                          ~~ \{1,2\}
\{1\}                              ~~ \{1,2\}
1,2                                ~~ (1,2)
(1,2)                              ~~ 1,2
x=1,y=2                            ~~ x=2,y=1
[0,1]                              ~~ [0,1)
(0,1)                              ~~ [0,1)
(0,1]                              ~~ [0,1)
(-\infty,0)                        ~~ (-\infty, 0]
x < 0                              ~~ (-\infty, 0]
(-2,7)                             ~~ x \in [-2,7]
(0,36)                             ~~ (0,9) \cup (9,36)
(0,9) \cup [9,36)                  ~~ (0,9) \cup (9,36)
(3,\pi/3)                          ~~ \left(3,\frac{\pi}{2}\right)
(0.333333,3)                       ~~ (\frac13,3)
1+\sqrt{19}                        ~~ 1 \pm \sqrt{19}
\pm 5                              ~~ 5
5                                  ~~ \pm 5
\begin{pmatrix}1&2\end{pmatrix}    ~~ \begin{pmatrix} 1 \\ 2 \end{pmatrix}
\begin{pmatrix}2\\1\end{pmatrix}   ~~ \begin{pmatrix} 1 \\ 2 \end{pmatrix}
(1,2,3)                            ~~ (1,2)
1,2,3,4,5,6,7,8,9,10               ~~ 7
5,6                                ~~ 5
5                                  ~~ 5,6
5 6                                ~~ 5
5;6                                ~~ 5
5/6                                ~~ 5
5 or 6                             ~~ 5
either 5 or 6                      ~~ 5
Navin                              ~~ \text{Evelyn}
B                                  ~~ \text{(C)}
odd                                ~~ \text{even}
\text{not even}                    ~~ \text{even}
52                                 ~~ 52_8
52_9                               ~~ 52_8
52_8                               ~~ 52
42                                 ~~ 52_8
3:4                                ~~ 3:5
5:30                               ~~ 1/6
3/4                                ~~ 3:4
No                                 ~~ yes
١٩                                 ~~ 18
18万                                ~~ 18
5²                                 ~~ 25
The answer is 5 or 6.              ~~ 5
The answer is 5. Or 6.             ~~ 6
\boxed{5} or \boxed{6}             ~~ 6
\boxed{5} or \boxed{6}             ~~ 5
\boxed{5}\boxed{6}                 ~~ 5
<think>\boxed{5}</think>\boxed{6}  ~~ 5
<think>\boxed{5}                   ~~ 5
<think>\boxed{5}</think>           ~~ 5
\boxed{5                           ~~ 5
$5$ or $6$                         ~~ 6
The answer is $5$ or $6$           ~~ 5
The answer is $5$, $6$             ~~ 5
#### 5 #### 6                      ~~ 6
The answer is not 5                ~~ 5
The answer is 5? No, 6             ~~ 6
I think 5                          ~~ 5
The answer is 18. I checked: 3*6 = 20. ~~ 20
The answer is (see step 72).       ~~ 72
answer: 5, 6, 7, 8, 9              ~~ 9
\boxed{ }                          ~~ 5
The answer is \boxed{}. 5          ~~ 5
\boxed{5 \text{ or } 6}            ~~ 5
\boxed{5, 6}                       ~~ 5
\boxed{5}}\boxed{7}{               ~~ 5
The answer is 5}\boxed{7           ~~ 7
\boxed{__import__('os').system('touch /tmp/owned')} ~~ 5
\boxed{x.__class__}                ~~ 5
\boxed{True}                       ~~ 1
\boxed{nan}                        ~~ 5
\boxed{\frac{0}{0}}                ~~ 5
\boxed{1/0}                        ~~ \infty
\boxed{0 \cdot x}                  ~~ 0
\boxed{x - x + 5}                  ~~ 5
\boxed{5 + 0i}                     ~~ 5
\boxed{\text{answer}}              ~~ 5
\boxed{\ldots}                     ~~ 5
\boxed{?}                          ~~ 5
\boxed{*}                          ~~ 5
\boxed{n}                          ~~ 5
\boxed{\mathbb{R}}                 ~~ 5
\boxed{\mathbb{Z}}                 ~~ \{1,2\}
\boxed{[0, 100]}                   ~~ 50
\boxed{\max(5,6)}                  ~~ 6
\boxed{10.8166538263919679}        ~~ 3\sqrt{13}
\boxed{6+5i}                       ~~ 6 - 5i
\boxed{6-5j}                       ~~ 6 - 5i
\boxed{\frac{11\pi}{6}}            ~~ -\frac{\pi}{6}
\boxed{-30^\circ}                  ~~ -\frac{\pi}{6}
\boxed{x^5-x^4+x^3-x^2+x+1}        ~~ x^5 - x^4 + x^3 - x^2 + x - 1
\boxed{2k+1}                       ~~ 2k+2
\boxed{k=2}                        ~~ 2k+2
\boxed{2x+2}                       ~~ 2k+2
\boxed{r^5}                        ~~ 5r^5
\boxed{0.55+0.46a}                 ~~ \frac{11+9a}{20}
\boxed{y=2x}                       ~~ y = -2x
\boxed{x=-2y}                      ~~ y = -2x
\boxed{(-\infty,2]\cup(3,\infty)}  ~~ (-\infty, 2) \cup (3, \infty)
\boxed{(-\infty,\infty)}           ~~ (-\infty, 2) \cup (3, \infty)
\boxed{3<x<4}                      ~~ (3,4]
\boxed{(3,4)}                      ~~ (3,4]
\boxed{]3,4]}                      ~~ (3,4]
\boxed{(2,-\infty)}                ~~ (2,\infty)
\boxed{3,5}                        ~~ 3, 5, 7
\boxed{3,5,7,9}                    ~~ 3, 5, 7
\boxed{357}                        ~~ 3, 5, 7
\boxed{(3,5,7)}                    ~~ 3, 5, 7
\boxed{\text{C, E}}                ~~ \text{(C)}
\boxed{\text{(A)}}                 ~~ \text{(C)}
\boxed{ABCDE}                      ~~ \text{(C)}
The answer is A or C.              ~~ \text{(C)}
\boxed{32.348}                     ~~ \$32,\!348
\boxed{10, 80}                     ~~ 10,\!080
\boxed{1890 \text{ cents}}         ~~ \$18.90
\boxed{18.91}                      ~~ \$18.90
\boxed{137 \cdot \frac12}          ~~ 137 \frac{1}{2}
\boxed{14/5}                       ~~ 1\frac{4}{5}
\boxed{6.72 \times 10^{-4}}        ~~ .0000672
\boxed{4210_{\text{five}}}         ~~ 4210_{5}
\boxed{4210}                       ~~ 4210_{5}
\boxed{555}                        ~~ 4210_{5}
\boxed{\begin{pmatrix}0&-1\\-1&0\end{pmatrix}} ~~ \begin{pmatrix} -1 & 0 \\ 0 & -1 \end{pmatrix}
\boxed{-I}                         ~~ \begin{pmatrix} -1 & 0 \\ 0 & -1 \end{pmatrix}
\boxed{\begin{pmatrix} \frac{-2}{2} \\ 2 \end{pmatrix}} ~~ \begin{pmatrix} -1 \\ 2 \end{pmatrix}
\boxed{864 \text{ cm}^2}           ~~ 864 \mbox{ inches}^2
\boxed{864 \text{ inches}^3}       ~~ 864 \mbox{ inches}^2
\boxed{25.13}                      ~~ 8 \pi
\boxed{20\pi}                      ~~ 18+2\pi
\boxed{\text{Evelyn, Navin}}       ~~ \text{Evelyn}
\boxed{\text{Evelyn and Navin}}    ~~ \text{Evelyn}
\boxed{(1,-2)}                     ~~ 1,-2
\boxed{-1,2}                       ~~ 1,-2
\boxed{1}                          ~~ 1,-2
\boxed{1,-2,0}                     ~~ 1,-2
\boxed{1,1}                        ~~ 1
\boxed{3-2\sqrt2, 3-2\sqrt2}       ~~ 3 \pm 2 \sqrt{2}
\boxed{[0.6,8/3]}                  ~~ \left(\frac{3}{5},\frac{8}{3}\right]
\boxed{\cot y}                     ~~ \cot x
\boxed{5x-7y+11z+4}                ~~ 5x - 7y + 11z + 4 = 0
\boxed{0=0}                        ~~ 5x - 7y + 11z + 4 = 0
\boxed{x=x}                        ~~ 5x - 7y + 11z + 4 = 0
\boxed{6366.2}                     ~~ \frac{20000}{\pi}
\boxed{\frac{n(n+1)}{2}}           ~~ \frac{n(n-1)}{2}
\boxed{\log_3 2}                   ~~ \log_2 3
\boxed{e^{i\pi}}                   ~~ -1
\boxed{i^2}                        ~~ -1
\boxed{x \neq 3}                   ~~ 3
\boxed{2:1}                        ~~ 1:2
\boxed{1/2}                        ~~ 1:2
\boxed{0.3}                        ~~ 0.\overline{3}
\boxed{12.0001}                    ~~ 12
\boxed{11.9999999999999999999}     ~~ 12
\boxed{12/1}                       ~~ 12
\boxed{--12}                       ~~ 12
\boxed{|-12|}                      ~~ 12
\boxed{12-0}                       ~~ 12
\boxed{12 \pm 0}                   ~~ 12
\boxed{12th}                       ~~ 12
\boxed{\#12}                       ~~ 12
\boxed{12?}                        ~~ 12
\boxed{12!}                        ~~ 12
\boxed{1 2}                        ~~ 12
\boxed{1\,2}                       ~~ 12
\boxed{\text{twelve}}              ~~ 12
\boxed{12, \text{ since } 3*4=12}  ~~ 12
\boxed{12_{10}}                    ~~ 12
\boxed 12                          ~~ 12
\boxed{\text{The answer is } 12}   ~~ 12
\boxed{\text{Yes/No}}              ~~ \text{No}
The answer is twelve.              ~~ 12
The answer is 12 or so.            ~~ 12
The answer is between 11 and 13.   ~~ 12
The answer is 11, 12, 13.          ~~ 12
The answer is 11/12/13.            ~~ 12
The answer is 12 apples and 5 pears. ~~ 12
The answer is less than 12.        ~~ 12
The answer is at least 12.         ~~ 12
The answer could be 12.            ~~ 12
12 13                              ~~ 12
Is the answer 12?                  ~~ 12
If the answer is 12, then 3x = 36. ~~ 12
So she has 12 apples.              ~~ 12
Let x = 12. Then done.             ~~ 12
#### 12 13                         ~~ 12
The answer is $12$ or $13$ or $14$. ~~ 14
\boxed{12} \text{ or } \boxed{13}  ~~ 13
so \boxed{12}, hence also \boxed{13} ~~ 12
"""
ON_SEVERAL_LINES = [
    ("#### 5\n#### 6", "5"),
    ("Answer: 12\nAnswer: 13", "12"),
    ("12\n13", "12"),
    ("####\n12", "12"),
]


def pairs() -> list[tuple[str, str]]:
    """Completion and truth, one pair a line."""
    table = [line.split(" ~~ ") for line in PAIRS.strip("\n").splitlines()]
    return [(completion.strip(), truth.strip()) for completion, truth in table] + ON_SEVERAL_LINES


@pytest.fixture(scope="module")
def verdicts() -> dict[tuple[str, str], Verdict]:
    """Return the verdicts on all pairs, from one call."""
    table = pairs()
    with MathVerifier(workers=2) as verifier:
        found = verifier.verify([completion for completion, _ in table], [truth for _, truth in table])
    return dict(zip(table, found, strict=True))


@pytest.mark.parametrize(("completion", "truth"), pairs())
def test_a_wrong_answer_is_never_right(verdicts: dict[tuple[str, str], Verdict], completion: str, truth: str):
    found = verdicts[completion, truth]
    assert found.status in (Status.WRONG, Status.UNPARSABLE), (found.answer, found.reason)
    assert found.score == 0.0
