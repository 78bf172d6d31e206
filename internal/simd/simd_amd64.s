#include "textflag.h"

// Four rows are multiplied at once, so that a block of the query is loaded once for them and their sums are independent.
// Registers throughout: SI query, DI out, CX rows left, R9 dim, R8 R10 R11 R12 the four rows, BX blocks left.

// A block of 64 codes: flip the sign bit, which adds 128 and makes them unsigned, then multiply by the signed query.
#define VNNI_BLOCK4 \
	VMOVDQU64 (AX), Z4      \
	VPXORD    (R8), Z31, Z5 \
	VPXORD    (R10), Z31, Z6 \
	VPXORD    (R11), Z31, Z7 \
	VPXORD    (R12), Z31, Z8 \
	VPDPBUSD  Z4, Z5, Z0    \
	VPDPBUSD  Z4, Z6, Z1    \
	VPDPBUSD  Z4, Z7, Z2    \
	VPDPBUSD  Z4, Z8, Z3    \
	ADDQ      $64, AX       \
	ADDQ      $64, R8       \
	ADDQ      $64, R10      \
	ADDQ      $64, R11      \
	ADDQ      $64, R12

// The last dim%64 codes, under the mask K1; the query is zero beyond them.
#define VNNI_TAIL4 \
	VMOVDQU8.Z (AX), K1, Z4  \
	VMOVDQU8.Z (R8), K1, Z5  \
	VMOVDQU8.Z (R10), K1, Z6 \
	VMOVDQU8.Z (R11), K1, Z7 \
	VMOVDQU8.Z (R12), K1, Z8 \
	VPXORD     Z5, Z31, Z5   \
	VPXORD     Z6, Z31, Z6   \
	VPXORD     Z7, Z31, Z7   \
	VPXORD     Z8, Z31, Z8   \
	VPDPBUSD   Z4, Z5, Z0    \
	VPDPBUSD   Z4, Z6, Z1    \
	VPDPBUSD   Z4, Z7, Z2    \
	VPDPBUSD   Z4, Z8, Z3

#define ZERO4 \
	VPXOR X0, X0, X0 \
	VPXOR X1, X1, X1 \
	VPXOR X2, X2, X2 \
	VPXOR X3, X3, X3

// Fold Z0..Z3 to 256 bits.
#define FOLD4 \
	VEXTRACTI64X4 $1, Z0, Y4 \
	VEXTRACTI64X4 $1, Z1, Y5 \
	VEXTRACTI64X4 $1, Z2, Y6 \
	VEXTRACTI64X4 $1, Z3, Y7 \
	VPADDD        Y4, Y0, Y0 \
	VPADDD        Y5, Y1, Y1 \
	VPADDD        Y6, Y2, Y2 \
	VPADDD        Y7, Y3, Y3

// Sum Y0..Y3 across into the four numbers of X0.
#define SUM4 \
	VPHADDD      Y1, Y0, Y0  \
	VPHADDD      Y3, Y2, Y2  \
	VPHADDD      Y2, Y0, Y0  \
	VEXTRACTI128 $1, Y0, X1  \
	VPADDD       X1, X0, X0

#define VNNI_BLOCK1 \
	VMOVDQU64 (AX), Z4      \
	VPXORD    (R8), Z31, Z5 \
	VPDPBUSD  Z4, Z5, Z0    \
	ADDQ      $64, AX       \
	ADDQ      $64, R8

#define VNNI_TAIL1 \
	VMOVDQU8.Z (AX), K1, Z4 \
	VMOVDQU8.Z (R8), K1, Z5 \
	VPXORD     Z5, Z31, Z5  \
	VPDPBUSD   Z4, Z5, Z0

// Sum Z0 across into the first number of X0.
#define SUM1Z \
	VEXTRACTI64X4 $1, Z0, Y1 \
	VPADDD        Y1, Y0, Y0

#define SUM1 \
	VEXTRACTI128 $1, Y0, X1   \
	VPADDD       X1, X0, X0   \
	VPHADDD      X0, X0, X0   \
	VPHADDD      X0, X0, X0

// K1 = the mask of dim%64, R14 = dim/64, R15 = dim%64, Z31 = 0x80 in every byte, X30 = bias.
#define VNNI_SETUP \
	MOVQ  R9, R14      \
	SHRQ  $6, R14      \
	MOVQ  R9, DX       \
	ANDQ  $63, DX      \
	MOVQ  CX, R13      \
	MOVQ  DX, CX       \
	MOVQ  $1, AX       \
	SHLQ  CX, AX       \
	DECQ  AX           \
	KMOVQ AX, K1       \
	MOVQ  R13, CX      \
	MOVL  $0x80808080, AX \
	VPBROADCASTD AX, Z31

// func scanVNNI(out *int32, query, codes *int8, dim, n int, bias int32)
TEXT ·scanVNNI(SB), NOSPLIT, $0-44
	MOVQ out+0(FP), DI
	MOVQ query+8(FP), SI
	MOVQ codes+16(FP), R13
	MOVQ dim+24(FP), R9
	MOVQ n+32(FP), CX
	MOVQ R13, R8
	VNNI_SETUP
	MOVL bias+40(FP), AX
	VPBROADCASTD AX, X30
	MOVQ R8, R13

four:
	CMPQ CX, $4
	JLT  one
	MOVQ R13, R8
	LEAQ (R8)(R9*1), R10
	LEAQ (R8)(R9*2), R11
	LEAQ (R10)(R9*2), R12
	LEAQ (R8)(R9*4), R13
	MOVQ SI, AX
	ZERO4
	MOVQ R14, BX
	TESTQ BX, BX
	JZ   fourtail

fourblock:
	VNNI_BLOCK4
	DECQ BX
	JNZ  fourblock

fourtail:
	TESTQ DX, DX
	JZ   foursum
	VNNI_TAIL4

foursum:
	FOLD4
	SUM4
	VPSUBD  X30, X0, X0
	VMOVDQU X0, (DI)
	ADDQ    $16, DI
	SUBQ    $4, CX
	JMP     four

one:
	TESTQ CX, CX
	JZ    done
	MOVQ  R13, R8
	ADDQ  R9, R13
	MOVQ  SI, AX
	VPXOR X0, X0, X0
	MOVQ  R14, BX
	TESTQ BX, BX
	JZ    onetail

oneblock:
	VNNI_BLOCK1
	DECQ BX
	JNZ  oneblock

onetail:
	TESTQ DX, DX
	JZ    onesum
	VNNI_TAIL1

onesum:
	SUM1Z
	SUM1
	VPSUBD X30, X0, X0
	VMOVD  X0, (DI)
	ADDQ   $4, DI
	DECQ   CX
	JMP    one

done:
	VZEROUPPER
	RET

// func gatherVNNI(out *int32, query, codes *int8, rows *uint32, dim, n int, bias int32)
TEXT ·gatherVNNI(SB), NOSPLIT, $8-52
	MOVQ out+0(FP), DI
	MOVQ query+8(FP), SI
	MOVQ dim+32(FP), R9
	MOVQ n+40(FP), CX
	VNNI_SETUP
	MOVL bias+48(FP), AX
	VPBROADCASTD AX, X30
	MOVQ rows+24(FP), R13

four:
	CMPQ  CX, $4
	JLT   one
	MOVQ  codes+16(FP), AX
	MOVL  0(R13), R8
	MOVL  4(R13), R10
	MOVL  8(R13), R11
	MOVL  12(R13), R12
	ADDQ  $16, R13
	IMULQ R9, R8
	IMULQ R9, R10
	IMULQ R9, R11
	IMULQ R9, R12
	ADDQ  AX, R8
	ADDQ  AX, R10
	ADDQ  AX, R11
	ADDQ  AX, R12
	MOVQ  SI, AX
	ZERO4
	MOVQ  R14, BX
	TESTQ BX, BX
	JZ    fourtail

fourblock:
	VNNI_BLOCK4
	DECQ BX
	JNZ  fourblock

fourtail:
	TESTQ DX, DX
	JZ    foursum
	VNNI_TAIL4

foursum:
	FOLD4
	SUM4
	VPSUBD  X30, X0, X0
	VMOVDQU X0, (DI)
	ADDQ    $16, DI
	SUBQ    $4, CX
	JMP     four

one:
	TESTQ CX, CX
	JZ    done
	MOVL  0(R13), R8
	ADDQ  $4, R13
	IMULQ R9, R8
	ADDQ  codes+16(FP), R8
	MOVQ  SI, AX
	VPXOR X0, X0, X0
	MOVQ  R14, BX
	TESTQ BX, BX
	JZ    onetail

oneblock:
	VNNI_BLOCK1
	DECQ BX
	JNZ  oneblock

onetail:
	TESTQ DX, DX
	JZ    onesum
	VNNI_TAIL1

onesum:
	SUM1Z
	SUM1
	VPSUBD X30, X0, X0
	VMOVD  X0, (DI)
	ADDQ   $4, DI
	DECQ   CX
	JMP    one

done:
	VZEROUPPER
	RET

// func dotAVX512(a, b *float32, n int) float32
TEXT ·dotAVX512(SB), NOSPLIT, $0-28
	MOVQ   a+0(FP), SI
	MOVQ   b+8(FP), DI
	MOVQ   n+16(FP), BX
	VXORPS X0, X0, X0
	VXORPS X1, X1, X1
	VXORPS X2, X2, X2
	VXORPS X3, X3, X3

block64:
	CMPQ         BX, $64
	JLT          block16
	VMOVUPS      (SI), Z4
	VMOVUPS      64(SI), Z5
	VMOVUPS      128(SI), Z6
	VMOVUPS      192(SI), Z7
	VFMADD231PS  (DI), Z4, Z0
	VFMADD231PS  64(DI), Z5, Z1
	VFMADD231PS  128(DI), Z6, Z2
	VFMADD231PS  192(DI), Z7, Z3
	ADDQ         $256, SI
	ADDQ         $256, DI
	SUBQ         $64, BX
	JMP          block64

block16:
	CMPQ        BX, $16
	JLT         tail
	VMOVUPS     (SI), Z4
	VFMADD231PS (DI), Z4, Z0
	ADDQ        $64, SI
	ADDQ        $64, DI
	SUBQ        $16, BX
	JMP         block16

tail:
	TESTQ       BX, BX
	JZ          sum
	MOVQ        BX, CX
	MOVL        $1, AX
	SHLL        CX, AX
	DECL        AX
	KMOVW       AX, K1
	VMOVUPS.Z   (SI), K1, Z4
	VMOVUPS.Z   (DI), K1, Z5
	VFMADD231PS Z5, Z4, Z1

sum:
	VADDPS        Z1, Z0, Z0
	VADDPS        Z3, Z2, Z2
	VADDPS        Z2, Z0, Z0
	VEXTRACTF64X4 $1, Z0, Y1
	VADDPS        Y1, Y0, Y0
	VEXTRACTF128  $1, Y0, X1
	VADDPS        X1, X0, X0
	VHADDPS       X0, X0, X0
	VHADDPS       X0, X0, X0
	VZEROUPPER
	MOVSS         X0, ret+24(FP)
	RET

// A block of 16 codes: widen to 16 bits, multiply and add pairs.
#define AVX2_BLOCK4 \
	VPMOVSXBW (AX), Y4   \
	VPMOVSXBW (R8), Y5   \
	VPMOVSXBW (R10), Y6  \
	VPMOVSXBW (R11), Y7  \
	VPMOVSXBW (R12), Y8  \
	VPMADDWD  Y4, Y5, Y5 \
	VPMADDWD  Y4, Y6, Y6 \
	VPMADDWD  Y4, Y7, Y7 \
	VPMADDWD  Y4, Y8, Y8 \
	VPADDD    Y5, Y0, Y0 \
	VPADDD    Y6, Y1, Y1 \
	VPADDD    Y7, Y2, Y2 \
	VPADDD    Y8, Y3, Y3 \
	ADDQ      $16, AX    \
	ADDQ      $16, R8    \
	ADDQ      $16, R10   \
	ADDQ      $16, R11   \
	ADDQ      $16, R12

#define AVX2_BLOCK1 \
	VPMOVSXBW (AX), Y4   \
	VPMOVSXBW (R8), Y5   \
	VPMADDWD  Y4, Y5, Y5 \
	VPADDD    Y5, Y0, Y0 \
	ADDQ      $16, AX    \
	ADDQ      $16, R8

// func scanAVX2(out *int32, query, codes *int8, dim, n int)
TEXT ·scanAVX2(SB), NOSPLIT, $0-40
	MOVQ out+0(FP), DI
	MOVQ query+8(FP), SI
	MOVQ codes+16(FP), R13
	MOVQ dim+24(FP), R9
	MOVQ n+32(FP), CX
	MOVQ R9, DX
	SHRQ $4, DX

four:
	CMPQ CX, $4
	JLT  one
	MOVQ R13, R8
	LEAQ (R8)(R9*1), R10
	LEAQ (R8)(R9*2), R11
	LEAQ (R10)(R9*2), R12
	LEAQ (R8)(R9*4), R13
	MOVQ SI, AX
	ZERO4
	MOVQ DX, BX
	TESTQ BX, BX
	JZ   foursum

fourblock:
	AVX2_BLOCK4
	DECQ BX
	JNZ  fourblock

foursum:
	SUM4
	VMOVDQU X0, (DI)
	ADDQ    $16, DI
	SUBQ    $4, CX
	JMP     four

one:
	TESTQ CX, CX
	JZ    done
	MOVQ  R13, R8
	ADDQ  R9, R13
	MOVQ  SI, AX
	VPXOR X0, X0, X0
	MOVQ  DX, BX
	TESTQ BX, BX
	JZ    onesum

oneblock:
	AVX2_BLOCK1
	DECQ BX
	JNZ  oneblock

onesum:
	SUM1
	VMOVD X0, (DI)
	ADDQ  $4, DI
	DECQ  CX
	JMP   one

done:
	VZEROUPPER
	RET

// func gatherAVX2(out *int32, query, codes *int8, rows *uint32, dim, n int)
TEXT ·gatherAVX2(SB), NOSPLIT, $0-48
	MOVQ out+0(FP), DI
	MOVQ query+8(FP), SI
	MOVQ codes+16(FP), DX
	MOVQ rows+24(FP), R13
	MOVQ dim+32(FP), R9
	MOVQ n+40(FP), CX

four:
	CMPQ  CX, $4
	JLT   one
	MOVL  0(R13), R8
	MOVL  4(R13), R10
	MOVL  8(R13), R11
	MOVL  12(R13), R12
	ADDQ  $16, R13
	IMULQ R9, R8
	IMULQ R9, R10
	IMULQ R9, R11
	IMULQ R9, R12
	ADDQ  DX, R8
	ADDQ  DX, R10
	ADDQ  DX, R11
	ADDQ  DX, R12
	MOVQ  SI, AX
	ZERO4
	MOVQ  R9, BX
	SHRQ  $4, BX
	TESTQ BX, BX
	JZ    foursum

fourblock:
	AVX2_BLOCK4
	DECQ BX
	JNZ  fourblock

foursum:
	SUM4
	VMOVDQU X0, (DI)
	ADDQ    $16, DI
	SUBQ    $4, CX
	JMP     four

one:
	TESTQ CX, CX
	JZ    done
	MOVL  0(R13), R8
	ADDQ  $4, R13
	IMULQ R9, R8
	ADDQ  DX, R8
	MOVQ  SI, AX
	VPXOR X0, X0, X0
	MOVQ  R9, BX
	SHRQ  $4, BX
	TESTQ BX, BX
	JZ    onesum

oneblock:
	AVX2_BLOCK1
	DECQ BX
	JNZ  oneblock

onesum:
	SUM1
	VMOVD X0, (DI)
	ADDQ  $4, DI
	DECQ  CX
	JMP   one

done:
	VZEROUPPER
	RET

// func dotAVX2(a, b *float32, n int) float32
TEXT ·dotAVX2(SB), NOSPLIT, $0-28
	MOVQ   a+0(FP), SI
	MOVQ   b+8(FP), DI
	MOVQ   n+16(FP), BX
	VXORPS X0, X0, X0
	VXORPS X1, X1, X1
	VXORPS X2, X2, X2
	VXORPS X3, X3, X3

block32:
	CMPQ        BX, $32
	JLT         block8
	VMOVUPS     (SI), Y4
	VMOVUPS     32(SI), Y5
	VMOVUPS     64(SI), Y6
	VMOVUPS     96(SI), Y7
	VFMADD231PS (DI), Y4, Y0
	VFMADD231PS 32(DI), Y5, Y1
	VFMADD231PS 64(DI), Y6, Y2
	VFMADD231PS 96(DI), Y7, Y3
	ADDQ        $128, SI
	ADDQ        $128, DI
	SUBQ        $32, BX
	JMP         block32

block8:
	CMPQ        BX, $8
	JLT         sum
	VMOVUPS     (SI), Y4
	VFMADD231PS (DI), Y4, Y0
	ADDQ        $32, SI
	ADDQ        $32, DI
	SUBQ        $8, BX
	JMP         block8

sum:
	VADDPS       Y1, Y0, Y0
	VADDPS       Y3, Y2, Y2
	VADDPS       Y2, Y0, Y0
	VEXTRACTF128 $1, Y0, X1
	VADDPS       X1, X0, X0
	VHADDPS      X0, X0, X0
	VHADDPS      X0, X0, X0
	VZEROUPPER
	MOVSS        X0, ret+24(FP)
	RET
