# For this project's own targets only; never exported.
add_library(erofs_oci_dev INTERFACE)
target_link_libraries(erofs_oci_dev INTERFACE erofs_oci)
target_compile_options(
  erofs_oci_dev INTERFACE -Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow
                          -Wnon-virtual-dtor -Wold-style-cast -Wcast-align -Woverloaded-virtual -Werror)
set(CMAKE_CXX_EXTENSIONS OFF)

# g++ 12 finds overlapping copies in the "x" + std::string of its own library that are not there, and
# reads of an std::optional's value where there is none.
target_compile_options(
  erofs_oci_dev INTERFACE $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict -Wno-maybe-uninitialized>)

# What the compiler offers against the use of errors that are left. Some of it costs a few percent of
# the time of a parser; none of it changes how objects fit together.
include(CheckCXXCompilerFlag)
include(CheckPIESupported)
check_pie_supported(LANGUAGES CXX)
set(erofs_oci_hardening -fstack-protector-strong)
foreach(flag stack-clash-protection cf-protection)
  string(MAKE_C_IDENTIFIER "erofs_oci_has_${flag}" has)
  check_cxx_compiler_flag(-f${flag} ${has})
  if(${has})
    list(APPEND erofs_oci_hardening -f${flag})
  endif()
endforeach()
# Debug builds are not optimized, and _FORTIFY_SOURCE needs that.
list(APPEND erofs_oci_hardening "$<$<NOT:$<CONFIG:Debug>>:-U_FORTIFY_SOURCE;-D_FORTIFY_SOURCE=3>"
     -D_GLIBCXX_ASSERTIONS)
target_compile_options(erofs_oci_dev INTERFACE ${erofs_oci_hardening})
target_link_options(erofs_oci_dev INTERFACE -Wl,-z,relro,-z,now)
if(PROJECT_IS_TOP_LEVEL)
  set(CMAKE_POSITION_INDEPENDENT_CODE ON)
  target_compile_options(erofs_oci_compiled PRIVATE ${erofs_oci_hardening})
endif()

# How many files of this project's own programs one translation unit takes; 1: each is one. Most of a
# unit's time goes to headers that the next one reads again. CMake's own UNITY_BUILD names files by
# absolute paths, and so a compiler cache would serve one checkout alone.
set(EROFS_OCI_UNITY 27 CACHE STRING "Files in a translation unit of tests and tool")

# erofs_oci_unity(OUT NAME SOURCE...): OUT becomes what to compile in place of the sources.
function(erofs_oci_unity out name)
  set(units)
  set(text)
  set(count 0)
  foreach(source IN LISTS ARGN)
    cmake_path(ABSOLUTE_PATH source)
    cmake_path(RELATIVE_PATH source BASE_DIRECTORY ${CMAKE_CURRENT_BINARY_DIR}/unity OUTPUT_VARIABLE path)
    string(APPEND text "#include \"${path}\"\n")
    math(EXPR count "${count} + 1")
    if(count EQUAL EROFS_OCI_UNITY)
      list(APPEND units "${text}")
      set(text)
      set(count 0)
    endif()
  endforeach()
  if(text)
    list(APPEND units "${text}")
  endif()
  set(files)
  foreach(unit IN LISTS units)
    list(LENGTH files number)
    set(file ${CMAKE_CURRENT_BINARY_DIR}/unity/${name}_${number}.cpp)
    file(CONFIGURE OUTPUT ${file} CONTENT "${unit}" @ONLY)
    list(APPEND files ${file})
  endforeach()
  set(${out} ${files} PARENT_SCOPE)
endfunction()
