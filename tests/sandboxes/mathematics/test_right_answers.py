"""Answers that are right, however they are written: completion ~~ truth."""

import pytest

from gemsmith.sandboxes.mathematics.verifier import MathVerifier
from gemsmith.sandboxes.verdict import Status, Verdict

PAIRS = r"""
\boxed{x \in \mathbb{R}}           ~~ \mathbb{R}
\boxed{1{,}234}                    ~~ 1,234
90 deg                             ~~ 90^\circ
-5                                 ~~ -5
−5                                 ~~ -5
–5                                 ~~ -5
+5                                 ~~ 5
- 5                                ~~ -5
12                                 ~~ 12.0
12.0                               ~~ 12
012                                ~~ 12
12.50                              ~~ 12.5
1,000                              ~~ 1000
1000                               ~~ 1,000
1,000,000                          ~~ 10^6
1e3                                ~~ 1000
1.5e3                              ~~ 1500
1.5 \times 10^3                    ~~ 1500
1/2                                ~~ 0.5
0.5                                ~~ 1/2
2/4                                ~~ 1/2
\frac{-1}{2}                       ~~ -\frac{1}{2}
\frac{1}{-2}                       ~~ -\frac{1}{2}
0.\overline{3}                     ~~ 1/3
1 1/2                              ~~ 3/2
1\frac12                           ~~ 1.5
1½                                 ~~ 1.5
5.                                 ~~ 5
10^6                               ~~ 1000000
50/100                             ~~ 1/2
0                                  ~~ 0.0
-0                                 ~~ 0
1.234.567                          ~~ 1234567
1.234,56                           ~~ 1234.56
18,50 €                            ~~ 18.5
1'234                              ~~ 1234
1,00,000                           ~~ 100000
5\text{ cm}                        ~~ 5
5 cm                               ~~ 5
5 cm                               ~~ 5\text{ cm}
5 inches                           ~~ 5 in
5 dollars                          ~~ \$5
$5                                 ~~ 5
5.4                                ~~ 5.4 \text{ cents}
50%                                ~~ 50
50\%                               ~~ 50\%
50 percent                         ~~ 50
90^\circ                           ~~ 90
90 degrees                         ~~ 90^\circ
15\mbox{ cm}^2                     ~~ 15
864 inches^2                       ~~ 864 \mbox{ inches}^2
18 dollars per day                 ~~ 18
18 quarters                        ~~ 18
12\pi \text{ cm}^2                 ~~ 12\pi
12\pi cm                           ~~ 12\pi
x=5                                ~~ 5
x = 5                              ~~ x=5
5                                  ~~ x=5
5=x                                ~~ 5
x+y=5                              ~~ 5
15 * 8 = 120                       ~~ 120
10x-14y+22z+8=0                    ~~ 5x - 7y + 11z + 4 = 0
y=2x+3                             ~~ y = 2x + 3
2x+3                               ~~ y = 2x + 3
y=3+2x                             ~~ y = 2x + 3
f(x)=2x                            ~~ 2x
\theta = 30^\circ                  ~~ 30^\circ
3+2x                               ~~ 2x+3
(x+1)^2                            ~~ x^2+2x+1
10\sqrt2                           ~~ \sqrt{200}
\frac{\sqrt{2}}{2}                 ~~ \frac{1}{\sqrt{2}}
1-12i                              ~~ -12i+1
\frac{3\pi}{4}                     ~~ \frac34\pi
2^{100}                            ~~ 4^{50}
e^x                                ~~ e^{x}
\sin^2 x + \cos^2 x + x            ~~ 1+x
p-q                                ~~ p - q
2k                                 ~~ 2k+0
\cot x                             ~~ \frac{\cos x}{\sin x}
x                                  ~~ X
\infty                             ~~ +\infty
(a+5)(b+2)                         ~~ ab+2a+5b+10
\dfrac{17}{50}                     ~~ \frac{17}{50}
11\sqrt{5}+11                      ~~ 11 \sqrt{5} + 11
11(\sqrt5+1)                       ~~ 11 \sqrt{5} + 11
x^8+x^7+x^6+x^5+x^4+x^3+x^2+x+1    ~~ x^8 + x^7 + x^6 + x^5 + x^4 + x^3 + x^2 + x + 1
(1,2)                              ~~ (1,2)
( 1 , 2 )                          ~~ (1,2)
{2,1}                              ~~ \{1,2\}
\{1,2\}                            ~~ \{2,1\}
1,2                                ~~ \{1,2\}
2,1                                ~~ 1,2
1 and 2                            ~~ 1,2
1, 2, and 3                        ~~ 3,2,1
x=1 or x=2                         ~~ 1,2
x=1, x=2                           ~~ 1,2
x = 1, 2                           ~~ 1,2
x=1,y=2                            ~~ y=2,x=1
[0,1)                              ~~ [0,1)
(-\infty,0]                        ~~ (-\infty, 0]
x \le 0                            ~~ (-\infty, 0]
[-2,7]                             ~~ x \in [-2,7]
x \in [-2,7]                       ~~ [-2,7]
-2 \le x \le 7                     ~~ x \in [-2,7]
(0,9) \cup (9,36)                  ~~ (9,36) \cup (0,9)
(3,\pi/2)                          ~~ \left(3,\frac{\pi}{2}\right)
(0.5, 3)                           ~~ (\frac12,3)
(x,y)=(1,2)                        ~~ (1,2)
1 \pm \sqrt{19}                    ~~ 1+\sqrt{19}, 1-\sqrt{19}
1-\sqrt{19},1+\sqrt{19}            ~~ 1 \pm \sqrt{19}
-5, 5                              ~~ \pm 5
\pm5                               ~~ 5,-5
\{-2,1+\sqrt5,1-\sqrt5\}           ~~ \{1\pm\sqrt{5},-2\}
\begin{pmatrix}1\\2\end{pmatrix}   ~~ \begin{pmatrix} 1 \\ 2 \end{pmatrix}
\begin{bmatrix}1\\2\end{bmatrix}   ~~ \begin{pmatrix} 1 \\ 2 \end{pmatrix}
\begin{pmatrix}-1/3\\2/3\end{pmatrix} ~~ \begin{pmatrix} -\frac13 \\ \frac23 \end{pmatrix}
(5)                                ~~ 5
\{5\}                              ~~ 5
\emptyset                          ~~ \{\}
\varnothing                        ~~ \emptyset
(1;2)                              ~~ (1,2)
\langle 1,2\rangle                 ~~ \langle 1, 2 \rangle
(1,000, 2)                         ~~ (1000,2)
1,000, 2,000                       ~~ 1000,2000
(x+1)(x+2)                         ~~ x^2+3x+2
\mathbb{R} \setminus \{1\}         ~~ (-\infty,1)\cup(1,\infty)
\text{Evelyn}                      ~~ Evelyn
evelyn                             ~~ \text{Evelyn}
C                                  ~~ \text{(C)}
(C)                                ~~ \text{(C)}
\text{C}                           ~~ \text{(C)}
The answer is an ellipse.          ~~ \text{ellipse}
even                               ~~ \text{even}
52_8                               ~~ 52_{8}
3:4                                ~~ 3 : 4
5:30                               ~~ 5:30
Yes                                ~~ yes
১৮                                 ~~ 18
๑๘                                 ~~ 18
౧౮                                 ~~ 18
１８                                 ~~ 18
١٨                                 ~~ 18
१८                                 ~~ 18
３，０００                              ~~ 3000
٣٫٥                                ~~ 3.5
18ドル                               ~~ 18
18 долларов                        ~~ 18
2√3                                ~~ 2\sqrt{3}
x²+1                               ~~ x^2+1
½                                  ~~ 1/2
π/2                                ~~ \frac{\pi}{2}
30°                                ~~ 30^\circ
x≤0                                ~~ (-\infty,0]
1±√19                              ~~ 1 \pm \sqrt{19}
\boxed{5}, \boxed{6}               ~~ 5,6
<think>\boxed{5}</think>\boxed{6}  ~~ 6
\boxed{\boxed{5}}                  ~~ 5
#### 18 apples                     ~~ 18
The answer is 18 because 3*6 is 18. ~~ 18
Die Antwort ist 18.                ~~ 18
\boxed{5}.                         ~~ 5
\boxed{5} \boxed{5}                ~~ 5
\boxed{None}                       ~~ None
\boxed{nan}                        ~~ nan
\boxed{\approx 5}                  ~~ 5
\boxed{3\sqrt{13}}                 ~~ 3\sqrt{13}
\boxed{3\sqrt13}                   ~~ 3\sqrt{13}
\boxed{\sqrt{117}}                 ~~ 3\sqrt{13}
\boxed{6-5i}                       ~~ 6 - 5i
\boxed{-5i+6}                      ~~ 6 - 5i
\boxed{-\frac{\pi}{6}}             ~~ -\frac{\pi}{6}
\boxed{-\pi/6}                     ~~ -\frac{\pi}{6}
\boxed{x^5-x^4+x^3-x^2+x-1}        ~~ x^5 - x^4 + x^3 - x^2 + x - 1
\boxed{(x-1)(x^4+x^2+1)}           ~~ x^5 - x^4 + x^3 - x^2 + x - 1
\boxed{2(k+1)}                     ~~ 2k+2
\boxed{5r^5}                       ~~ 5r^5
\boxed{5R^5}                       ~~ 5r^5
\boxed{5r^4 r}                     ~~ 5r^5
\boxed{\frac{11+9a}{20}}           ~~ \frac{11+9a}{20}
\boxed{\frac{9a+11}{20}}           ~~ \frac{11+9a}{20}
\boxed{0.55+0.45a}                 ~~ \frac{11+9a}{20}
\boxed{y=-2x}                      ~~ y = -2x
\boxed{2x+y=0}                     ~~ y = -2x
\boxed{-2x}                        ~~ y = -2x
\boxed{(-\infty,2)\cup(3,\infty)}  ~~ (-\infty, 2) \cup (3, \infty)
\boxed{x<2 \text{ or } x>3}        ~~ (-\infty, 2) \cup (3, \infty)
\boxed{(3,\infty)\cup(-\infty,2)}  ~~ (-\infty, 2) \cup (3, \infty)
\boxed{\mathbb{R}}                 ~~ (-\infty, \infty)
\boxed{(3,4]}                      ~~ (3,4]
\boxed{3<x\le4}                    ~~ (3,4]
\boxed{(2,\infty)}                 ~~ (2,\infty)
\boxed{x>2}                        ~~ (2,\infty)
\boxed{(2,+\infty)}                ~~ (2,\infty)
\boxed{3,5,7}                      ~~ 3, 5, 7
\boxed{\{3,5,7\}}                  ~~ 3, 5, 7
\boxed{\text{(C)}}                 ~~ \text{(C)}
\boxed{\textbf{(C)}}               ~~ \text{(C)}
\boxed{C}                          ~~ \text{(C)}
The answer is (C).                 ~~ \text{(C)}
The answer is C.                   ~~ \text{(C)}
\boxed{\$32,348}                   ~~ \$32,\!348
\boxed{32348}                      ~~ \$32,\!348
\boxed{\$32348 \text{ dollars}}    ~~ \$32,\!348
\boxed{10,080}                     ~~ 10,\!080
\boxed{10080}                      ~~ 10,\!080
\boxed{11111111100}                ~~ 11,\! 111,\! 111,\! 100
\boxed{18.9}                       ~~ \$18.90
\boxed{\$18.90}                    ~~ \$18.90
\boxed{137.5}                      ~~ 137 \frac{1}{2}
\boxed{\frac{275}{2}}              ~~ 137 \frac{1}{2}
\boxed{1.8}                        ~~ 1\frac{4}{5}
\boxed{9/5}                        ~~ 1\frac{4}{5}
\boxed{6.72 \times 10^{-5}}        ~~ .0000672
\boxed{0.0000672}                  ~~ .0000672
\boxed{6.72e-5}                    ~~ .0000672
\boxed{4210_5}                     ~~ 4210_{5}
\boxed{4210_{5}}                   ~~ 4210_{5}
\boxed{\begin{pmatrix} -1/3 \\ 2/3 \\ 5/3 \end{pmatrix}} ~~ \begin{pmatrix} -1/3 \\ 2/3 \\ 5/3 \end{pmatrix}
\boxed{\begin{pmatrix} -1 & 0 \\ 0 & -1 \end{pmatrix}} ~~ \begin{pmatrix} -1 & 0 \\ 0 & -1 \end{pmatrix}
\boxed{\begin{bmatrix}-1&0\\0&-1\end{bmatrix}} ~~ \begin{pmatrix} -1 & 0 \\ 0 & -1 \end{pmatrix}
\boxed{\left(\begin{array}{c}1\\2\end{array}\right)} ~~ \begin{pmatrix} 1 \\ 2 \end{pmatrix}
\boxed{864 \text{ square inches}}  ~~ 864 \mbox{ inches}^2
\boxed{864}                        ~~ 864 \mbox{ inches}^2
\boxed{864 \text{ in}^2}           ~~ 864 \mbox{ inches}^2
\boxed{864\,\text{in}^2}           ~~ 864 \mbox{ inches}^2
\boxed{\frac{270}{7}^\circ}        ~~ \frac{270}7\text{ degrees}
\boxed{\dfrac{270}{7}}             ~~ \frac{270}7\text{ degrees}
\boxed{\left(\frac{270}{7}\right)^\circ} ~~ \frac{270}7\text{ degrees}
\boxed{8\pi \text{ square units}}  ~~ 8 \pi
\boxed{8 pi}                       ~~ 8 \pi
\boxed{8π}                         ~~ 8 \pi
\boxed{18+2\pi}                    ~~ 18+2\pi
\boxed{2\pi+18}                    ~~ 18+2\pi
\boxed{\text{Evelyn}}              ~~ \text{Evelyn}
The answer is Evelyn.              ~~ \text{Evelyn}
**Evelyn**                         ~~ \text{Evelyn}
\boxed{1,-2}                       ~~ 1,-2
\boxed{-2,1}                       ~~ 1,-2
\boxed{x=1,-2}                     ~~ 1,-2
\boxed{x = 1 \text{ and } x = -2}  ~~ 1,-2
\boxed{3 \pm 2\sqrt{2}}            ~~ 3 \pm 2 \sqrt{2}
\boxed{3+2\sqrt2, 3-2\sqrt2}       ~~ 3 \pm 2 \sqrt{2}
\boxed{(1\pm\sqrt2)^2}             ~~ 3 \pm 2 \sqrt{2}
\boxed{\left(\frac{3}{5},\frac{8}{3}\right]} ~~ \left(\frac{3}{5},\frac{8}{3}\right]
\boxed{(0.6,8/3]}                  ~~ \left(\frac{3}{5},\frac{8}{3}\right]
\boxed{\cot(x)}                    ~~ \cot x
\boxed{1/\tan x}                   ~~ \cot x
\boxed{cot x}                      ~~ \cot x
\boxed{5x-7y+11z=-4}               ~~ 5x - 7y + 11z + 4 = 0
\boxed{5x-7y+11z+4=0}              ~~ 5x - 7y + 11z + 4 = 0
\boxed{\frac{20000}{\pi}}          ~~ \frac{20000}{\pi}
\boxed{2^{10}}                     ~~ 2^{10}
\boxed{1024}                       ~~ 2^{10}
\boxed{4^5}                        ~~ 2^{10}
\boxed{n!}                         ~~ n!
\boxed{n(n-1)!}                    ~~ n!
\boxed{\binom{n}{2}}               ~~ \frac{n(n-1)}{2}
\boxed{\log_2 3}                   ~~ \log_2 3
\boxed{\frac{\ln 3}{\ln 2}}        ~~ \log_2 3
\boxed{\frac{d}{dx}x^2}            ~~ 2x
\boxed{\int 2 dx}                  ~~ 2x
\boxed{\sum_{k=1}^{n} k}           ~~ \frac{n(n+1)}{2}
\boxed{x \neq 3}                   ~~ x \neq 3
\boxed{\mathbb{R} \setminus \{3\}} ~~ x \neq 3
\boxed{1:2}                        ~~ 1:2
\boxed{1 : 2}                      ~~ 1:2
\boxed{\frac{1}{3}}                ~~ 0.\overline{3}
\boxed{.\overline{3}}              ~~ 1/3
\boxed{0.\overline{12}}            ~~ 4/33
\boxed{12}                         ~~ 12.
\boxed{12}                         ~~ 12.000
\boxed{1.2e1}                      ~~ 12
\boxed{[12]}                       ~~ 12
\boxed{12\%}                       ~~ 12
\boxed{ 12 }                       ~~ 12
\boxed{\mathbf{12}}                ~~ 12
\boxed{\bf 12}                     ~~ 12
\boxed{{12}}                       ~~ 12
\boxed{\mathrm{12}}                ~~ 12
\boxed{\text{12}}                  ~~ 12
\boxed{12 \text{ apples}}          ~~ 12
\boxed{12 apples}                  ~~ 12
\boxed{\underline{12}}             ~~ 12
\fbox{12}                          ~~ 12
\boxed{12}$                        ~~ 12
$\boxed{12}$ dollars               ~~ 12
\boxed{\$12}                       ~~ 12
\boxed{12 = 12}                    ~~ 12
\boxed{n = 12}                     ~~ 12
\boxed{\text{Total} = 12}          ~~ 12
\boxed{\text{No}}                  ~~ \text{No}
The answer is: 12.                 ~~ 12
the answer is 12!                  ~~ 12
The answer is 12, not 13.          ~~ 12
The answer is 12 (not 13).         ~~ 12
= 12                               ~~ 12
total = 12                         ~~ 12
3 * 4 = 12                         ~~ 12
3 * 4 = 12 apples                  ~~ 12
The final answer is $\boxed{12}$.  ~~ 12
#### 12.                           ~~ 12
####12                             ~~ 12
#### $12                           ~~ 12
**Answer**: 12                     ~~ 12
Answer = 12                        ~~ 12
ANSWER: 12                         ~~ 12
Final answer: 12 cm                ~~ 12
The answer is \(12\).              ~~ 12
The answer is $12 per hour.        ~~ 12
\boxed{12} and \boxed{13}          ~~ 12, 13
"""
ON_SEVERAL_LINES = [
    ("Answer: 12\nAnswer: 13", "13"),
    ("The answer is\n\n12", "12"),
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
def test_a_right_answer_is_right(verdicts: dict[tuple[str, str], Verdict], completion: str, truth: str):
    found = verdicts[completion, truth]
    assert (found.status, found.score) == (Status.RIGHT, 1.0), (found.answer, found.reason)
