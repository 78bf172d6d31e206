#include "textflag.h"

// The Go assembler has no names for SDOT, SMULL, SMULL2, SADALP and FADDP, so they are written as words.
// Encodings: Arm Architecture Reference Manual for A-profile, section C7.2.

// Registers throughout: R0 out, R1 query, R2 codes, R3 dim, R4 rows left, R5..R8 the four rows, R9 a place in the query, R10 blocks left.

#define DOTPROD_BLOCK4 \
	VLD1.P 16(R9), [V16.B16] \
	VLD1.P 16(R5), [V17.B16] \
	VLD1.P 16(R6), [V18.B16] \
	VLD1.P 16(R7), [V19.B16] \
	VLD1.P 16(R8), [V20.B16] \
	WORD $0x4e909620 /* SDOT V0.4S, V17.16B, V16.16B */ \
	WORD $0x4e909641 /* SDOT V1.4S, V18.16B, V16.16B */ \
	WORD $0x4e909662 /* SDOT V2.4S, V19.16B, V16.16B */ \
	WORD $0x4e909683 /* SDOT V3.4S, V20.16B, V16.16B */

#define DOTPROD_BLOCK1 \
	VLD1.P 16(R9), [V16.B16] \
	VLD1.P 16(R5), [V17.B16] \
	WORD $0x4e909620 /* SDOT V0.4S, V17.16B, V16.16B */

#define NEON_BLOCK4 \
	VLD1.P 16(R9), [V16.B16] \
	VLD1.P 16(R5), [V17.B16] \
	VLD1.P 16(R6), [V18.B16] \
	VLD1.P 16(R7), [V19.B16] \
	VLD1.P 16(R8), [V20.B16] \
	WORD $0x0e30c235 /* SMULL V21.8H, V17.8B, V16.8B */ \
	WORD $0x4e30c236 /* SMULL2 V22.8H, V17.16B, V16.16B */ \
	WORD $0x4e606aa0 /* SADALP V0.4S, V21.8H */ \
	WORD $0x4e606ac0 /* SADALP V0.4S, V22.8H */ \
	WORD $0x0e30c255 /* SMULL V21.8H, V18.8B, V16.8B */ \
	WORD $0x4e30c256 /* SMULL2 V22.8H, V18.16B, V16.16B */ \
	WORD $0x4e606aa1 /* SADALP V1.4S, V21.8H */ \
	WORD $0x4e606ac1 /* SADALP V1.4S, V22.8H */ \
	WORD $0x0e30c275 /* SMULL V21.8H, V19.8B, V16.8B */ \
	WORD $0x4e30c276 /* SMULL2 V22.8H, V19.16B, V16.16B */ \
	WORD $0x4e606aa2 /* SADALP V2.4S, V21.8H */ \
	WORD $0x4e606ac2 /* SADALP V2.4S, V22.8H */ \
	WORD $0x0e30c295 /* SMULL V21.8H, V20.8B, V16.8B */ \
	WORD $0x4e30c296 /* SMULL2 V22.8H, V20.16B, V16.16B */ \
	WORD $0x4e606aa3 /* SADALP V3.4S, V21.8H */ \
	WORD $0x4e606ac3 /* SADALP V3.4S, V22.8H */

#define NEON_BLOCK1 \
	VLD1.P 16(R9), [V16.B16] \
	VLD1.P 16(R5), [V17.B16] \
	WORD $0x0e30c235 /* SMULL V21.8H, V17.8B, V16.8B */ \
	WORD $0x4e30c236 /* SMULL2 V22.8H, V17.16B, V16.16B */ \
	WORD $0x4e606aa0 /* SADALP V0.4S, V21.8H */ \
	WORD $0x4e606ac0 /* SADALP V0.4S, V22.8H */

#define ZERO(V) VEOR V.B16, V.B16, V.B16

// Sum the four numbers of V across and store the result.
#define STORE(V) \
	VADDV   V.S4, V     \
	VMOV    V.S[0], R11 \
	MOVW.P  R11, 4(R0)

// func scanDotprod(out *int32, query, codes *int8, dim, n int)
TEXT ·scanDotprod(SB), NOSPLIT, $0-40
	MOVD out+0(FP), R0
	MOVD query+8(FP), R1
	MOVD codes+16(FP), R2
	MOVD dim+24(FP), R3
	MOVD n+32(FP), R4

four:
	CMP  $4, R4
	BLT  one
	MOVD R2, R5
	ADD  R3, R5, R6
	ADD  R3, R6, R7
	ADD  R3, R7, R8
	ADD  R3, R8, R2
	MOVD R1, R9
	ZERO(V0)
	ZERO(V1)
	ZERO(V2)
	ZERO(V3)
	LSR  $4, R3, R10
	CBZ  R10, foursum

fourblock:
	DOTPROD_BLOCK4
	SUBS $1, R10
	BNE  fourblock

foursum:
	STORE(V0)
	STORE(V1)
	STORE(V2)
	STORE(V3)
	SUB  $4, R4
	B    four

one:
	CBZ R4, done
	MOVD R2, R5
	ADD  R3, R2
	MOVD R1, R9
	ZERO(V0)
	LSR  $4, R3, R10
	CBZ  R10, onesum

oneblock:
	DOTPROD_BLOCK1
	SUBS $1, R10
	BNE  oneblock

onesum:
	STORE(V0)
	SUB  $1, R4
	B    one

done:
	RET

// func gatherDotprod(out *int32, query, codes *int8, rows *uint32, dim, n int)
TEXT ·gatherDotprod(SB), NOSPLIT, $0-48
	MOVD out+0(FP), R0
	MOVD query+8(FP), R1
	MOVD codes+16(FP), R2
	MOVD rows+24(FP), R12
	MOVD dim+32(FP), R3
	MOVD n+40(FP), R4

four:
	CMP     $4, R4
	BLT     one
	MOVWU.P 4(R12), R5
	MOVWU.P 4(R12), R6
	MOVWU.P 4(R12), R7
	MOVWU.P 4(R12), R8
	MADD    R3, R2, R5, R5
	MADD    R3, R2, R6, R6
	MADD    R3, R2, R7, R7
	MADD    R3, R2, R8, R8
	MOVD R1, R9
	ZERO(V0)
	ZERO(V1)
	ZERO(V2)
	ZERO(V3)
	LSR  $4, R3, R10
	CBZ  R10, foursum

fourblock:
	DOTPROD_BLOCK4
	SUBS $1, R10
	BNE  fourblock

foursum:
	STORE(V0)
	STORE(V1)
	STORE(V2)
	STORE(V3)
	SUB  $4, R4
	B    four

one:
	CBZ R4, done
	MOVWU.P 4(R12), R5
	MADD    R3, R2, R5, R5
	MOVD R1, R9
	ZERO(V0)
	LSR  $4, R3, R10
	CBZ  R10, onesum

oneblock:
	DOTPROD_BLOCK1
	SUBS $1, R10
	BNE  oneblock

onesum:
	STORE(V0)
	SUB  $1, R4
	B    one

done:
	RET

// func scanNEON(out *int32, query, codes *int8, dim, n int)
TEXT ·scanNEON(SB), NOSPLIT, $0-40
	MOVD out+0(FP), R0
	MOVD query+8(FP), R1
	MOVD codes+16(FP), R2
	MOVD dim+24(FP), R3
	MOVD n+32(FP), R4

four:
	CMP  $4, R4
	BLT  one
	MOVD R2, R5
	ADD  R3, R5, R6
	ADD  R3, R6, R7
	ADD  R3, R7, R8
	ADD  R3, R8, R2
	MOVD R1, R9
	ZERO(V0)
	ZERO(V1)
	ZERO(V2)
	ZERO(V3)
	LSR  $4, R3, R10
	CBZ  R10, foursum

fourblock:
	NEON_BLOCK4
	SUBS $1, R10
	BNE  fourblock

foursum:
	STORE(V0)
	STORE(V1)
	STORE(V2)
	STORE(V3)
	SUB  $4, R4
	B    four

one:
	CBZ R4, done
	MOVD R2, R5
	ADD  R3, R2
	MOVD R1, R9
	ZERO(V0)
	LSR  $4, R3, R10
	CBZ  R10, onesum

oneblock:
	NEON_BLOCK1
	SUBS $1, R10
	BNE  oneblock

onesum:
	STORE(V0)
	SUB  $1, R4
	B    one

done:
	RET

// func gatherNEON(out *int32, query, codes *int8, rows *uint32, dim, n int)
TEXT ·gatherNEON(SB), NOSPLIT, $0-48
	MOVD out+0(FP), R0
	MOVD query+8(FP), R1
	MOVD codes+16(FP), R2
	MOVD rows+24(FP), R12
	MOVD dim+32(FP), R3
	MOVD n+40(FP), R4

four:
	CMP     $4, R4
	BLT     one
	MOVWU.P 4(R12), R5
	MOVWU.P 4(R12), R6
	MOVWU.P 4(R12), R7
	MOVWU.P 4(R12), R8
	MADD    R3, R2, R5, R5
	MADD    R3, R2, R6, R6
	MADD    R3, R2, R7, R7
	MADD    R3, R2, R8, R8
	MOVD R1, R9
	ZERO(V0)
	ZERO(V1)
	ZERO(V2)
	ZERO(V3)
	LSR  $4, R3, R10
	CBZ  R10, foursum

fourblock:
	NEON_BLOCK4
	SUBS $1, R10
	BNE  fourblock

foursum:
	STORE(V0)
	STORE(V1)
	STORE(V2)
	STORE(V3)
	SUB  $4, R4
	B    four

one:
	CBZ R4, done
	MOVWU.P 4(R12), R5
	MADD    R3, R2, R5, R5
	MOVD R1, R9
	ZERO(V0)
	LSR  $4, R3, R10
	CBZ  R10, onesum

oneblock:
	NEON_BLOCK1
	SUBS $1, R10
	BNE  oneblock

onesum:
	STORE(V0)
	SUB  $1, R4
	B    one

done:
	RET

// func dotNEON(a, b *float32, n int) float32
TEXT ·dotNEON(SB), NOSPLIT, $0-28
	MOVD a+0(FP), R0
	MOVD b+8(FP), R1
	MOVD n+16(FP), R2
	ZERO(V0)
	ZERO(V1)
	ZERO(V2)
	ZERO(V3)

block16:
	CMP    $16, R2
	BLT    block4
	VLD1.P 64(R0), [V4.S4, V5.S4, V6.S4, V7.S4]
	VLD1.P 64(R1), [V16.S4, V17.S4, V18.S4, V19.S4]
	VFMLA  V4.S4, V16.S4, V0.S4
	VFMLA  V5.S4, V17.S4, V1.S4
	VFMLA  V6.S4, V18.S4, V2.S4
	VFMLA  V7.S4, V19.S4, V3.S4
	SUB    $16, R2
	B      block16

block4:
	CBZ    R2, sum
	VLD1.P 16(R0), [V4.S4]
	VLD1.P 16(R1), [V16.S4]
	VFMLA  V4.S4, V16.S4, V0.S4
	SUB    $4, R2
	B      block4

sum:
	WORD  $0x6e21d400 /* FADDP V0.4S, V0.4S, V1.4S */
	WORD  $0x6e23d442 /* FADDP V2.4S, V2.4S, V3.4S */
	WORD  $0x6e22d400 /* FADDP V0.4S, V0.4S, V2.4S */
	WORD  $0x6e20d400 /* FADDP V0.4S, V0.4S, V0.4S */
	WORD  $0x6e20d400 /* FADDP V0.4S, V0.4S, V0.4S */
	FMOVS F0, ret+24(FP)
	RET
